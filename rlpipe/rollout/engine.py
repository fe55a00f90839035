"""The protocol of everything that draws completions, and the engine on transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from rlpipe.errors import ConfigError
from rlpipe.rollout.attention import grouped_heads
from rlpipe.rollout.decode import Decoder
from rlpipe.rollout.fused import FusedSteps, fuses
from rlpipe.rollout.layout import by_columns
from rlpipe.rollout.pools import SlotPool, WholePool, serves_slots
from rlpipe.rollout.shared import SharedPool
from rlpipe.rollout.steps import ModelSteps, Steps
from rlpipe.types import Completion, Request, Sampling

_log = logging.getLogger(__name__)

# With such a slack, samples in flight need to move to the left only now and then.
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
class _Room:
    """What keys and values need.

    Attributes:
        slots: samples at once.
        widest: tokens of the longest prompt.
        new: tokens of a completion, at most.
        slack: columns beyond what one sample needs, where prompts will have to wait.
        siblings: whether any prompt has several samples.
    """

    slots: int
    widest: int
    new: int
    slack: int
    siblings: bool

    @property
    def longest(self) -> int:
        """Tokens of a prompt with its completion, at most."""
        return self.widest + self.new

    @property
    def worth_sharing(self) -> bool:
        """Whether to keep a prompt's keys and values once is faster than a copy for each sample."""
        return self.siblings and self.widest >= _WORTH_SHARING

    def shared(self) -> SharedPool:
        """Each prompt once."""
        return SharedPool(self.slots, self.new + self.slack)

    def apart(self) -> SlotPool:
        """Each sample with a copy of its prompt."""
        return SlotPool(self.slots, self.longest + self.slack, self.widest)


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
        room = self._room(requests, sampling)
        with self._steps(room) as steps:
            return Decoder(steps, requests, sampling, self.eos_ids, self.device).run()

    @contextmanager
    def _steps(self, room: _Room) -> Iterator[Steps]:
        config: Any = self.model.config
        with self.precision(), grouped_heads(config):
            if fuses(self.model, room.longest):
                yield FusedSteps(self.model, room.shared() if room.worth_sharing else room.apart(), room.longest)
                return
            with by_columns(self.model):
                yield ModelSteps(self.model, room.apart() if serves_slots(config, room.longest) else self._whole(room))

    def _room(self, requests: Sequence[Request], sampling: Sampling) -> _Room:
        widest = max(len(request.prompt_ids) for request in requests)
        needed, budget = widest + sampling.max_new_tokens, self.token_budget
        slots = min(self.batch_size, len(requests))
        if budget is not None:
            if budget < needed:
                raise ConfigError(
                    f"rollout.token_budget={budget}: one sample needs {needed} tokens ({widest} of its "
                    f"prompt, {sampling.max_new_tokens} new ones). Set {needed} or more, or null."
                )
            slots = min(slots, budget // needed)
        slack = 0
        if slots < len(requests):
            slack = _SLACK if budget is None else min(_SLACK, budget // slots - needed)
        siblings = len({request.prompt_ids for request in requests}) < len(requests)
        return _Room(slots, widest, sampling.max_new_tokens, slack, siblings)

    def _whole(self, room: _Room) -> WholePool:
        _log.warning(
            "%s keeps memories that samples cannot enter or leave one by one (sliding windows, recurrent states): "
            "prompts wait until a whole batch of %d is done.", type(self.model).__name__, room.slots,
        )  # fmt: skip
        return WholePool(room.slots)
