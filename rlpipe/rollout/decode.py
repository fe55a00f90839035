"""The decoding loop: prompts enter as room becomes free, samples leave with their last token."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlpipe.rollout.draw import draw
from rlpipe.rollout.prompts import Group, groups_of, padded
from rlpipe.rollout.steps import Steps
from rlpipe.rollout.streams import keys, uniforms
from rlpipe.types import Completion, Request, Sampling

# Prompts enter when this share of the slots is free: a prefill costs about a step, so it should serve several samples.
_ENTRY_SHARE = 0.25


@dataclass
class _Sample:
    """One request's tokens so far."""

    place: int
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)

    def completion(self, eos_ids: frozenset[int]) -> Completion:
        return Completion(tuple(self.ids), tuple(self.logps), self.ids[-1] in eos_ids)


@dataclass
class _Flight:
    """The samples in flight, in the order of the steps' rows, and what their next step needs.

    Attributes:
        key_R: [R] int64, their random streams.
        read_R: [R] int64, tokens that the model has read, the prompt's included.
        drawn_R: [R] int64, tokens drawn so far.
        token_R: [R] int64, the last of them, which the model has not read yet.
    """

    samples: list[_Sample]
    key_R: Tensor
    read_R: Tensor
    drawn_R: Tensor
    token_R: Tensor

    def select(self, rows: Sequence[int]) -> _Flight:
        index = torch.tensor(rows, dtype=torch.long, device=self.key_R.device)
        tensors = (t[index] for t in (self.key_R, self.read_R, self.drawn_R, self.token_R))
        return _Flight([self.samples[row] for row in rows], *tensors)

    def joined(self, other: _Flight) -> _Flight:
        mine, theirs = self._tensors(), other._tensors()
        tensors = (torch.cat(pair) for pair in zip(mine, theirs, strict=True))
        return _Flight(self.samples + other.samples, *tensors)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.key_R, self.read_R, self.drawn_R, self.token_R


class Decoder:
    """Draws one completion for each of `requests`, whose tokens `steps` reads."""

    def __init__(
        self,
        steps: Steps,
        requests: Sequence[Request],
        sampling: Sampling,
        eos_ids: frozenset[int],
        device: torch.device,
    ) -> None:
        self._steps, self._requests = steps, requests
        self._sampling, self._eos_ids, self._device = sampling, eos_ids, device
        self._waiting = deque(groups_of(requests, steps.slots))
        self._done: dict[int, Completion] = {}
        self._flight = self._nobody()

    def run(self) -> list[Completion]:
        """The completions, in the requests' order."""
        while self._waiting or self._flight.samples:
            if entering := self._entering():
                self._enter(entering)
            if self._flight.samples:
                self._step()
        return [self._done[place] for place in range(len(self._requests))]

    def _entering(self) -> list[Group]:
        """The waiting groups that enter now: none, or as many as there is room for."""
        flying = len(self._flight.samples)
        free = self._steps.slots - flying
        if not self._waiting or (flying and not self._steps.joinable):
            return []
        if flying and free < self._steps.slots * _ENTRY_SHARE:
            return []
        entering = []
        while self._waiting and len(self._waiting[0].members) <= free:
            entering.append(self._waiting.popleft())
            free -= len(entering[-1].members)
        return entering

    def _enter(self, groups: Sequence[Group]) -> None:
        """Read each prompt once; its samples draw their first token from the same logits."""
        prompts = padded([group.prompt_ids for group in groups], self._device)
        source = [row for row, group in enumerate(groups) for _ in group.members]
        source_N = torch.tensor(source, device=self._device)
        logits_PV = self._steps.enter(prompts, source_N)
        places = [place for group in groups for place in group.members]
        nothing_N = torch.zeros(len(places), dtype=torch.long, device=self._device)
        new = _Flight(
            [_Sample(place) for place in places],
            keys([self._requests[place].stream for place in places], self._device),
            prompts.length_P[source_N],
            nothing_N,
            nothing_N,
        )
        self._take(new, logits_PV[source_N])
        self._flight = self._flight.joined(new)
        self._land()

    def _step(self) -> None:
        flight = self._flight
        logits_RV = self._steps.step(flight.token_R, flight.read_R)
        flight.read_R = flight.read_R + 1
        self._take(flight, logits_RV)
        self._land()

    def _take(self, flight: _Flight, logits_RV: Tensor) -> None:
        """Draw one token more for each sample."""
        uniform_R = uniforms(flight.key_R, flight.drawn_R)
        flight.token_R, logp_R = draw(logits_RV, uniform_R, self._sampling)
        flight.drawn_R = flight.drawn_R + 1
        for sample, token, logp in zip(flight.samples, flight.token_R.tolist(), logp_R.tolist(), strict=True):
            sample.ids.append(token)
            sample.logps.append(logp)

    def _land(self) -> None:
        """Samples with their last token leave; the last ones in flight take their rows."""
        samples = self._flight.samples
        flying = [row for row, sample in enumerate(samples) if not self._finished(sample)]
        if len(flying) == len(samples):
            return
        for sample in samples:
            if self._finished(sample):
                self._done[sample.place] = sample.completion(self._eos_ids)
        rows = _compacted(flying)
        self._flight = self._flight.select(rows)
        self._steps.keep(rows)

    def _finished(self, sample: _Sample) -> bool:
        return sample.ids[-1] in self._eos_ids or len(sample.ids) == self._sampling.max_new_tokens

    def _nobody(self) -> _Flight:
        nothing = torch.zeros(0, dtype=torch.long, device=self._device)
        return _Flight([], nothing, nothing, nothing, nothing)


def _compacted(rows: Sequence[int]) -> list[int]:
    """The same rows in the order of the fewest moves: each stays where it is, or fills a hole before it."""
    kept, size = set(rows), len(rows)
    movers = [row for row in rows if row >= size]
    return [row if row in kept else movers.pop() for row in range(size)]
