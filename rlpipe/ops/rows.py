"""Taking rows out of a matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def fetched(rows: Tensor, place_M: Tensor) -> Tensor:
    """[M, ...] `rows.index_select(0, place_M)` for places that are all different: the way back adds nothing.

    Args:
        rows: [N, ...], carries grad.
        place_M: [M] int64, each once.
    """
    taken: Tensor = _Fetched.apply(rows, place_M)
    return taken


class _Fetched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, place_M: Tensor) -> Tensor:
        ctx.rows = len(rows)
        ctx.save_for_backward(place_M)
        return rows.index_select(0, place_M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (place_M,) = ctx.saved_tensors
        return grad.new_zeros((ctx.rows, *grad.shape[1:])).index_copy(0, place_M, grad), None
