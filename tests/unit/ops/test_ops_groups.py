"""Sums and means over the samples of one prompt, wherever in the batch they stand."""

import torch
from torch.testing import assert_close

from rlpipe.ops.groups import group_count, group_mean, group_sum

VALUES = torch.tensor([1.0, 10.0, 2.0, 30.0, 6.0], dtype=torch.float64)
GROUPS = torch.tensor([9, 4, 9, 4, 9])  # neither sorted nor counted from 0


def _each(nine: float, four: float) -> torch.Tensor:
    return torch.tensor([nine, four, nine, four, nine], dtype=torch.float64)


def test_each_row_gets_its_groups_sum():
    assert_close(group_sum(VALUES, GROUPS), _each(9, 40))  # 1 + 2 + 6, 10 + 30


def test_each_row_gets_its_groups_size():
    assert_close(group_count(VALUES, GROUPS), _each(3, 2))


def test_each_row_gets_its_groups_mean():
    assert_close(group_mean(VALUES, GROUPS), _each(3, 20))
