"""A trained reward model as a component with options, for `rlpipe score`: no stage uses it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Literal

import torch
from pydantic import Field

from rlpipe.config.schema import Runtime
from rlpipe.dataio.tokenizers import load as load_tokenizer
from rlpipe.models.load import load_scorer
from rlpipe.models.runtime import prepare_torch
from rlpipe.rewards.base import Component, Missing
from rlpipe.stages.rewarding import scored_by
from rlpipe.training.batching import Batching
from rlpipe.types import Task

Device = Literal["auto", "cpu", "cuda"]


def stored_reward_model(
    tasks: Sequence[Task],
    completions: Sequence[str],
    *,
    path: str = "models/reward_model/gold",
    device: Device = "auto",
    batch_size: Annotated[int, Field(ge=1)] = 64,
) -> list[float | Missing]:
    """The scores of the reward model in the folder `path`, `batch_size` responses at a time, in float32.

    Raises: ModelError if there is none; ConfigError for a device that is not here.
    """
    return _loaded(path, device, batch_size)(tasks, completions)


@cache
def _loaded(path: str, device: Device, batch_size: int) -> Component:
    runtime = Runtime(slots=1, threads=torch.get_num_threads(), device=device, dtype="float32", checkpoint_every=1)
    chosen = prepare_torch(runtime, 0)
    tokenizer = load_tokenizer(path)
    assert isinstance(tokenizer.pad_token_id, int), "load_tokenizer sees to it"
    batching = Batching(tokenizer.pad_token_id, chosen, "float32")
    return scored_by(load_scorer(path, chosen), tokenizer, batching, batch_size)
