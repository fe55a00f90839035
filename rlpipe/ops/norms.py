"""Root-mean-square normalisation with a backward pass of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlpipe.errors import ShapeError


def rms_norm(states: Tensor, weight_H: Tensor, *, eps: float) -> Tensor:
    """[..., H] states divided by their root mean square, feature by feature times a weight.

        y = w x s,   s = 1 / sqrt(mean(x^2) + eps)
        dL/dx = s (w g - x s mean(w g x s)),   dL/dw = sum(g x s),   g = dL/dy

    Autograd through the formula reads and writes the states some twelve times on the way back; this takes five.

    Raises: ShapeError if the weight is not as wide as the states, or of another type.
    Source: arXiv:1910.07467.
    """
    if weight_H.shape != states.shape[-1:] or weight_H.dtype != states.dtype:
        raise ShapeError(
            f"states have shape {tuple(states.shape)} and type {states.dtype}, the weight {tuple(weight_H.shape)} and "
            f"{weight_H.dtype}; expected [..., H] and [H] of one type."
        )
    normed: Tensor = _RMSNorm.apply(states, weight_H, eps)
    return normed


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
        scale = length.square_().div_(states.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(states, weight_H, scale)
        return (states * scale).mul_(weight_H)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        states, weight_H, scale = ctx.saved_tensors
        unit = states * scale
        weight_grad_H = (grad * unit).reshape(-1, len(weight_H)).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, weight_grad_H, None
        states_grad = grad * weight_H
        along = (states_grad * unit).mean(-1, keepdim=True)
        return states_grad.addcmul_(unit, along, value=-1).mul_(scale), weight_grad_H, None
