"""What a decoding loop asks of a model: read prompts, read a token more of each sample in flight, forget samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from rlpipe.rollout.pools import Pool
from rlpipe.rollout.prompts import Prompts, prefill


class Steps(Protocol):
    """Reads for at most `slots` samples at once, which it keeps in the order in which they entered.

    Attributes:
        joinable: whether samples may enter while others are in flight.
    """

    @property
    def slots(self) -> int: ...

    @property
    def joinable(self) -> bool: ...

    def enter(self, prompts: Prompts, source_N: Tensor) -> Tensor:
        """[P, V] logits after each prompt, read once; N samples more, sample n behind prompt `source_N[n]`."""
        ...

    def step(self, token_R: Tensor, position_R: Tensor) -> Tensor:
        """[R, V] logits after one token more of each sample; `position_R` tokens stand before it."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Only these samples, in this order. A row is never kept behind its old place."""
        ...


class ModelSteps:
    """Steps by the model's own forward pass, whatever it is, with keys and values in a pool."""

    def __init__(self, model: nn.Module, pool: Pool) -> None:
        self._model, self._pool = model, pool
        self._config: Any = model.config

    @property
    def slots(self) -> int:
        return self._pool.slots

    @property
    def joinable(self) -> bool:
        return self._pool.joinable

    def enter(self, prompts: Prompts, source_N: Tensor) -> Tensor:
        """See `Steps`."""
        cache = DynamicCache(config=self._config)
        logits_PV = prefill(self._model, prompts, cache)
        self._pool.enter(cache, prompts.length_P, source_N)
        return logits_PV

    def step(self, token_R: Tensor, position_R: Tensor) -> Tensor:
        """See `Steps`."""
        output = self._model(
            input_ids=token_R.unsqueeze(1),
            attention_mask=self._pool.seen().long(),
            position_ids=position_R.unsqueeze(1),
            past_key_values=self._pool.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._pool.extended()
        logits_RV: Tensor = output.logits[:, -1]
        return logits_RV

    def keep(self, rows: Sequence[int]) -> None:
        """See `Steps`."""
        self._pool.keep(torch.tensor(rows, dtype=torch.long))
