"""Inputs of the ops' tests: padded tensors, and the lists of real numbers that references are written over.

Whatever stands under a mask is NaN, so that any op that looks there is found out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlpipe.types import PairLogps

# Padding on both sides, a full row, a row of one token.
MASK = torch.tensor(
    [
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1],
        [1, 1, 1, 1, 0],
    ]
).bool()
GROUPS = torch.tensor([7, 3, 7, 3, 7, 3])


def draw(seed: int, low: float, high: float, mask: Tensor = MASK) -> Tensor:
    """[B, T] float64, uniform in [low, high) on real tokens, NaN elsewhere."""
    uniform = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(mask, low + (high - low) * uniform, math.nan)


def rows(values: Tensor, mask: Tensor = MASK) -> list[list[float]]:
    """The real numbers of each row."""
    return [row[real].tolist() for row, real in zip(values, mask, strict=True)]


def padded(lists: list[list[float]], mask: Tensor = MASK) -> Tensor:
    """[B, T] float64: the numbers back at their real tokens, exact zeros elsewhere."""
    values = torch.zeros(mask.shape, dtype=torch.float64)
    values[mask] = torch.tensor([x for row in lists for x in row], dtype=torch.float64)
    return values


def leaf(values: Tensor) -> Tensor:
    """A copy that collects a gradient."""
    return values.detach().clone().requires_grad_()


def pairs(chosen, rejected, chosen_ref, rejected_ref, lengths=(1, 1), z=0.0) -> PairLogps:
    """One pair of float64 log-probs; the policy's two collect a gradient."""

    def one(x: float) -> Tensor:
        return torch.tensor([x], dtype=torch.float64)

    return PairLogps(
        chosen_B=one(chosen).requires_grad_(),
        rejected_B=one(rejected).requires_grad_(),
        chosen_ref_B=one(chosen_ref),
        rejected_ref_B=one(rejected_ref),
        chosen_length_B=one(lengths[0]),
        rejected_length_B=one(lengths[1]),
        kl_baseline=torch.tensor(z, dtype=torch.float64),
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
