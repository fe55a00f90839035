"""From id lists to tensors on the device, in the run's precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from rlpipe.dataio.collate import collate
from rlpipe.models.runtime import precision
from rlpipe.training.encode import Example
from rlpipe.types import PaddedBatch


@dataclass(frozen=True)
class Batching:
    """How this run turns examples into tensors."""

    pad_id: int
    device: torch.device
    dtype: str

    def collate(self, examples: Sequence[Example]) -> PaddedBatch:
        """One padded batch on the device."""
        return collate(examples, self.pad_id, self.device)

    def micro_batches(self, examples: Sequence[Example], size: int) -> Iterator[PaddedBatch]:
        """Consecutive padded batches of at most `size` examples, each only as wide as it needs."""
        for part in slices(len(examples), size):
            yield self.collate(examples[part])

    def precision(self) -> AbstractContextManager[object]:
        """The context of every forward pass."""
        return precision(self.device, self.dtype)


def slices(rows: int, size: int) -> list[slice]:
    """Consecutive micro-batches of at most `size` rows."""
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
