"""The decoding loop: prompts enter as room becomes free, samples leave with their last token."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache

from rlpipe.rollout.draw import draw
from rlpipe.rollout.pools import Pool
from rlpipe.rollout.prompts import Group, groups_of, prefill
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
    """The samples in flight, in the order of the pool's rows, and what their next step needs.

    Attributes:
        key_R: [R] int64, their random streams.
        start_R: [R] int64, the pool's column where each one's prompt starts.
        drawn_R: [R] int64, tokens drawn so far.
        token_R: [R] int64, the last of them, which the model has not read yet.
    """

    samples: list[_Sample]
    key_R: Tensor
    start_R: Tensor
    drawn_R: Tensor
    token_R: Tensor

    def select(self, rows: Sequence[int]) -> _Flight:
        index = torch.tensor(rows, dtype=torch.long, device=self.key_R.device)
        tensors = (t[index] for t in (self.key_R, self.start_R, self.drawn_R, self.token_R))
        return _Flight([self.samples[row] for row in rows], *tensors)

    def joined(self, other: _Flight) -> _Flight:
        mine, theirs = self._tensors(), other._tensors()
        tensors = (torch.cat(pair) for pair in zip(mine, theirs, strict=True))
        return _Flight(self.samples + other.samples, *tensors)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.key_R, self.start_R, self.drawn_R, self.token_R


class Decoder:
    """Draws one completion for each of `requests` from `model`, with keys and values in `pool`."""

    def __init__(
        self,
        model: nn.Module,
        config: PreTrainedConfig,
        pool: Pool,
        requests: Sequence[Request],
        sampling: Sampling,
        eos_ids: frozenset[int],
        device: torch.device,
    ) -> None:
        self._model, self._config, self._pool, self._requests = model, config, pool, requests
        self._sampling, self._eos_ids, self._device = sampling, eos_ids, device
        self._waiting = deque(groups_of(requests, pool.slots))
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
        free = self._pool.slots - flying
        if not self._waiting or (flying and not self._pool.joinable):
            return []
        if flying and free < self._pool.slots * _ENTRY_SHARE:
            return []
        entering = []
        while self._waiting and len(self._waiting[0].members) <= free:
            entering.append(self._waiting.popleft())
            free -= len(entering[-1].members)
        return entering

    def _enter(self, groups: Sequence[Group]) -> None:
        """Read each prompt once; its samples draw their first token from the same logits."""
        prompts = DynamicCache(config=self._config)
        logits_PV = prefill(self._model, [group.prompt_ids for group in groups], prompts, self._device)
        source = [row for row, group in enumerate(groups) for _ in group.members]
        source_N = torch.tensor(source, device=self._device)
        self._pool.enter(prompts, source_N)
        places = [place for group in groups for place in group.members]
        lengths = [len(self._requests[place].prompt_ids) for place in places]
        nothing_N = torch.zeros(len(places), dtype=torch.long, device=self._device)
        new = _Flight(
            [_Sample(place) for place in places],
            keys([self._requests[place].stream for place in places], self._device),
            self._pool.end - torch.tensor(lengths, device=self._device),
            nothing_N,
            nothing_N,
        )
        self._take(new, logits_PV[source_N])
        self._flight = self._flight.joined(new)
        self._land()

    def _step(self) -> None:
        flight, pool = self._flight, self._pool
        column_W = torch.arange(pool.first, pool.end + 1, device=self._device)
        output = self._model(
            input_ids=flight.token_R.unsqueeze(1),
            attention_mask=(column_W >= flight.start_R.unsqueeze(1)).long(),
            position_ids=(pool.end - flight.start_R).unsqueeze(1),
            past_key_values=pool.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        end = pool.end + 1
        self._take(flight, output.logits[:, -1])
        pool.extended(int(flight.start_R.min()))
        flight.start_R = flight.start_R + (pool.end - end)  # the pool may have moved to the left
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
        self._pool.keep(rows)

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
