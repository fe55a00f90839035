"""Stateless shuffling."""

from __future__ import annotations

from collections import Counter

import pytest

from rlpipe.dataio.batches import batch_indices
from rlpipe.errors import DataError


def read(rows: int, batch_size: int, steps: int, seed: int = 0) -> list[int]:
    return [index for step in range(steps) for index in batch_indices(rows, batch_size, step, seed)]


def test_every_row_once_an_epoch_across_batch_borders() -> None:
    # 7 rows, batches of 3: 7 batches are 21 reads, three whole epochs.
    indices = read(7, 3, 7)
    assert [sorted(indices[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert indices[:7] != indices[7:14], "each epoch has an order of its own"


def test_a_batch_larger_than_the_data_repeats_rows_evenly() -> None:
    # 10 of 4 rows: two epochs and a half, so each row 2 or 3 times.
    assert set(Counter(batch_indices(4, 10, 0, 0)).values()) == {2, 3}


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    assert batch_indices(1000, 8, 57, 5) == read(1000, 8, 58, 5)[-8:]


def test_the_seed_changes_the_order() -> None:
    assert batch_indices(1000, 8, 0, 1) != batch_indices(1000, 8, 0, 2)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="No rows"):
        batch_indices(0, 8, 0, 0)
