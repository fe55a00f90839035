"""Sums and means over the samples that answer the same prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def group_sum(values_B: Tensor, group_B: Tensor) -> Tensor:
    """[B]: each row's group's sum."""
    groups, index_B = group_B.unique(return_inverse=True)
    sums = torch.zeros(len(groups), dtype=values_B.dtype, device=values_B.device).index_add(0, index_B, values_B)
    return sums[index_B]


def group_count(values_B: Tensor, group_B: Tensor) -> Tensor:
    """[B]: how many rows each row's group has, in the dtype of `values_B`."""
    return group_sum(torch.ones_like(values_B), group_B)


def group_mean(values_B: Tensor, group_B: Tensor) -> Tensor:
    """[B]: each row's group's mean."""
    return group_sum(values_B, group_B) / group_count(values_B, group_B)
