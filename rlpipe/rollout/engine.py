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
from rlpipe.rollout.fused import FusedSteps, fuses
from rlpipe.rollout.layout import by_columns
from rlpipe.rollout.pools import Pool, SlotPool, WholePool, serves_slots
from rlpipe.rollout.shared import SharedPool
from rlpipe.rollout.steps import ModelSteps, Steps
from rlpipe.types import Completion, Request, Sampling

_log = logging.getLogger(__name__)

# Columns beyond what one sample needs, so that samples in flight need to move to the left only now and then.
_SLACK = 64
# Prompts as long as this (tokens) are kept once for all their samples: for shorter ones, to read each sample's copy
# costs less than to attend in two parts.
_WORTH_SHARING = 96


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
        slots, longest = self._slots(requests, sampling)
        # Where prompts will have to wait, a slot has columns beyond what one sample needs.
        slack = 0 if slots == len(requests) else self._slack(slots, longest)
        widest = longest - sampling.max_new_tokens
        with self.precision(), grouped_heads(config):
            if fuses(self.model, longest):
                sharing = widest >= _WORTH_SHARING and len({request.prompt_ids for request in requests}) < len(requests)
                pool = (
                    SharedPool(slots, sampling.max_new_tokens + slack)
                    if sharing
                    else SlotPool(slots, longest + slack, widest)
                )
                return self._drawn(FusedSteps(self.model, pool, longest), requests, sampling)
            with by_columns(self.model):
                return self._drawn(
                    ModelSteps(self.model, self._own_pool(slots, longest, slack, widest)), requests, sampling
                )

    def _drawn(self, steps: Steps, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return Decoder(steps, requests, sampling, self.eos_ids, self.device).run()

    def _slots(self, requests: Sequence[Request], sampling: Sampling) -> tuple[int, int]:
        """How many samples are decoded at once, and the most tokens that one of them may have."""
        widest = max(len(request.prompt_ids) for request in requests)
        needed = widest + sampling.max_new_tokens
        slots = min(self.batch_size, len(requests))
        if self.token_budget is None:
            return slots, needed
        if self.token_budget < needed:
            raise ConfigError(
                f"rollout.token_budget={self.token_budget}: one sample needs {needed} tokens ({widest} of its "
                f"prompt, {sampling.max_new_tokens} new ones). Set {needed} or more, or null."
            )
        return min(slots, self.token_budget // needed), needed

    def _slack(self, slots: int, longest: int) -> int:
        return _SLACK if self.token_budget is None else min(_SLACK, self.token_budget // slots - longest)

    def _own_pool(self, slots: int, longest: int, slack: int, widest: int) -> Pool:
        """For the model's own attention."""
        config: Any = self.model.config
        if serves_slots(config, longest):
            return SlotPool(slots, longest + slack, widest)
        _log.warning(
            "%s keeps memories that samples cannot enter or leave one by one (sliding windows, recurrent states): "
            "prompts wait until a whole batch of %d is done.", type(self.model).__name__, slots,
        )  # fmt: skip
        return WholePool(slots)
