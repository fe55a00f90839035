"""Which rows make the batch of a step: a function of its arguments alone, so resuming needs no state."""

from __future__ import annotations

import random
from functools import lru_cache

from rlpipe.errors import DataError


def batch_indices(rows: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Row numbers of the batch of `step` (from 0).

    The rows are read in epochs, each a fresh permutation, one after the other; batches run across the borders
    of epochs, so that every row is read equally often and no batch is short.

    Raises: DataError if there are no rows.
    """
    if rows < 1:
        raise DataError("No rows to draw a batch from. Look at data/prepared and metrics/prepare.json.")
    first = step * batch_size
    return [order(rows, seed, at // rows)[at % rows] for at in range(first, first + batch_size)]


@lru_cache(maxsize=4)
def order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The permutation of range(rows) in which `epoch` reads the rows."""
    indices = list(range(rows))
    random.Random(f"order:{seed}:{epoch}").shuffle(indices)
    return tuple(indices)
