"""From id lists to tensors on the device, in the run's precision, in micro-batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from rlpipe.dataio.collate import collate
from rlpipe.models.runtime import precision
from rlpipe.training.encode import Example
from rlpipe.types import PaddedBatch


@dataclass(frozen=True)
class Batching:
    """How this run turns examples into tensors.

    Attributes:
        micro_batch_tokens: tokens of one forward and backward pass, at most, unless a single row has more; a prompt
            that rows share counts once.
    """

    pad_id: int
    device: torch.device
    dtype: str
    micro_batch_tokens: int

    def collate(self, examples: Sequence[Example]) -> PaddedBatch:
        """One padded batch on the device."""
        return collate(examples, self.pad_id, self.device)

    def filled(self, costs: Sequence[int]) -> list[list[int]]:
        """Places of `costs` (tokens) in micro-batches, the longest first: what is alike in length stays together."""
        longest_first = sorted(range(len(costs)), key=lambda place: -costs[place])
        ordered = [costs[place] for place in longest_first]
        return [[longest_first[i] for i in part] for part in consecutive(ordered, self.micro_batch_tokens)]

    def parts(self, batch: PaddedBatch) -> list[list[int]]:
        """The rows of a batch's micro-batches: rows with the same prompt side by side, the longest first."""
        units, costs = [], []
        responses = batch.response_mask_BT.sum(1).tolist()
        for prompt, rows in batch.by_prompt().items():
            room = self.micro_batch_tokens - len(prompt)
            for some in consecutive([responses[row] for row in rows], room):
                units.append([rows[i] for i in some])
                costs.append(len(prompt) + sum(responses[row] for row in units[-1]))
        return [[row for unit in part for row in units[unit]] for part in self.filled(costs)]

    def in_parts(self, batch: PaddedBatch, read: Callable[[PaddedBatch], Tensor]) -> Tensor:
        """[B, ...] what `read` makes of each row, micro-batch by micro-batch, in the run's precision."""
        parts = self.parts(batch)
        with self.precision():
            values = torch.cat([read(batch.rows(rows)) for rows in parts])
        back = torch.tensor([row for rows in parts for row in rows], device=values.device).argsort()
        return values[back]

    def precision(self) -> AbstractContextManager[object]:
        """The context of every forward pass."""
        return precision(self.device, self.dtype)


def consecutive(costs: Sequence[int], limit: int) -> list[range]:
    """Ranges of neighbours that together cost at most `limit`, or are one alone."""
    ranges: list[range] = []
    start, spent = 0, 0
    for place, cost in enumerate(costs):
        if place > start and spent + cost > limit:
            ranges.append(range(start, place))
            start, spent = place, 0
        spent += cost
    return [*ranges, range(start, len(costs))] if costs else []
