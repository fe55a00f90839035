"""Trained reward models as components with options, for `rlpipe score`: no stage uses them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedTokenizerBase

from rlpipe.config.schema import Runtime
from rlpipe.dataio.chat import prompt_ids, response_ids, token_ends
from rlpipe.dataio.tokenizers import load as load_tokenizer
from rlpipe.models.load import load_scorer
from rlpipe.models.runtime import prepare_torch
from rlpipe.rewards.base import Explained, Missing
from rlpipe.rewards.steps import step_ends
from rlpipe.stages.rewarding import scored_by
from rlpipe.training.batching import Batching
from rlpipe.training.process_reward import LabelledSteps, step_probabilities
from rlpipe.types import Task

Device = Literal["auto", "cpu", "cuda"]
AtOnce = Annotated[int, Field(ge=1)]


def stored_reward_model(
    tasks: Sequence[Task],
    completions: Sequence[str],
    *,
    path: str = "models/reward_model/gold",
    device: Device = "auto",
    micro_batch_tokens: AtOnce = 8192,
) -> list[float | Missing]:
    """The scores of the reward model in the folder `path`, at most `micro_batch_tokens` tokens at a time, in float32.

    Raises: ModelError if there is none; ConfigError for a device that is not here.
    """
    return scored_by(*_loaded(path, device, micro_batch_tokens))(tasks, completions)


def stored_process_reward_model(
    tasks: Sequence[Task],
    completions: Sequence[str],
    *,
    path: str = "models/process_reward_model",
    device: Device = "auto",
    micro_batch_tokens: AtOnce = 8192,
) -> list[float | Missing]:
    """The mean probability that a step is right, over the steps of each response: what `StepRewards` adds up to.

    Raises: ModelError if there is none in the folder `path`; ConfigError for a device that is not here.
    """
    model, tokenizer, batching = _loaded(path, device, micro_batch_tokens)
    rows = []
    for task, text in zip(tasks, completions, strict=True):
        ids = response_ids(tokenizer, text)
        ends = tuple(token_ends(tokenizer, ids, step_ends(text)))
        rows.append(LabelledSteps(prompt_ids(tokenizer, task.prompt), ids, ends, ()))
    return [_mean(found) for found in step_probabilities(model, rows, batching)]


def _mean(probabilities: Sequence[float]) -> float | Missing:
    if not probabilities:
        return Missing("the response has no step to judge")
    steps = ", ".join(f"{probability:.2f}" for probability in probabilities)
    return Explained(sum(probabilities) / len(probabilities), f"right, step by step: {steps}")


@cache
def _loaded(path: str, device: Device, tokens: int) -> tuple[nn.Module, PreTrainedTokenizerBase, Batching]:
    runtime = Runtime(
        slots=1,
        threads=torch.get_num_threads(),
        device=device,
        dtype="float32",
        micro_batch_tokens=tokens,
        gradient_checkpointing=False,
        checkpoint_every=1,
    )
    chosen = prepare_torch(runtime, 0)
    tokenizer = load_tokenizer(path)
    assert isinstance(tokenizer.pad_token_id, int), "load_tokenizer sees to it"
    return load_scorer(path, chosen), tokenizer, Batching(tokenizer.pad_token_id, chosen, "float32", tokens)
