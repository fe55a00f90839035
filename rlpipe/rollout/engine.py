"""The protocol of everything that draws completions, and the engine on transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from rlpipe.errors import ConfigError
from rlpipe.rollout.attention import grouped_heads
from rlpipe.rollout.decode import Decoder
from rlpipe.rollout.layout import by_columns
from rlpipe.rollout.pools import Pool, SlotPool, WholePool, serves_slots
from rlpipe.types import Completion, Request, Sampling

_log = logging.getLogger(__name__)

# Columns beyond what one sample needs, so that samples in flight need to move to the left only now and then.
_SLACK = 64


class Engine(Protocol):
    """Draws one completion for each request, in the requests' order.

    Attributes:
        exact: whether its log-probs are those of the trainer's own arithmetic, so that an update may take them for
            the old ones.
    """

    @property
    def exact(self) -> bool: ...

    def refresh(self) -> None:
        """The model's weights have changed since the last draw. A first draw needs no word."""
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Tokens and the sampler's own log-probs, at the sampling temperature."""
        ...


@dataclass(frozen=True)
class TransformersEngine:
    """Samples from a live transformers model, with its key-value cache.

    A prompt is read once for all samples of it; a finished sample leaves the batch, and waiting prompts enter in its
    place. None of that changes a sample: its random numbers are its own.

    Attributes:
        batch_size: how many samples are decoded at once, at most.
        token_budget: how many tokens' keys and values are held at once, at most; None is no limit.
        precision: the context of the model's forward passes.
    """

    model: nn.Module
    eos_ids: frozenset[int]
    device: torch.device
    batch_size: int
    token_budget: int | None = None
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    exact: ClassVar[bool] = True

    def refresh(self) -> None:
        """See `Engine`: it samples from the model itself."""

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Engine`. Raises: ConfigError if the token budget has no room for one sample."""
        if not requests:
            return []
        config: Any = self.model.config
        with self.precision(), by_columns(self.model), grouped_heads(config):
            pool = self._pool(requests, sampling, config)
            return Decoder(self.model, config, pool, requests, sampling, self.eos_ids, self.device).run()

    def _pool(self, requests: Sequence[Request], sampling: Sampling, config: Any) -> Pool:
        widest = max(len(request.prompt_ids) for request in requests)
        needed = widest + sampling.max_new_tokens
        slots = min(self.batch_size, len(requests))
        if self.token_budget is not None:
            if self.token_budget < needed:
                raise ConfigError(
                    f"rollout.token_budget={self.token_budget}: one sample needs {needed} tokens ({widest} of its "
                    f"prompt, {sampling.max_new_tokens} new ones). Set {needed} or more, or null."
                )
            slots = min(slots, self.token_budget // needed)
        if not serves_slots(config, needed):
            _log.warning(
                "%s keeps memories that samples cannot enter or leave one by one (sliding windows, recurrent states): "
                "prompts wait until a whole batch of %d is done.", type(self.model).__name__, slots,
            )  # fmt: skip
            return WholePool(slots)
        columns = needed if slots == len(requests) else self._columns(needed, slots)
        return SlotPool(slots, columns, widest)

    def _columns(self, needed: int, slots: int) -> int:
        """The columns of each slot where prompts will have to wait."""
        spare = _SLACK if self.token_budget is None else self.token_budget // slots - needed
        return needed + min(_SLACK, spare)
