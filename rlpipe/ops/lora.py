"""A frozen linear map and its low-rank adapter as one operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlpipe.ops.products import rounded


def adapted(
    states: Tensor, weight_OI: Tensor, bias_O: Tensor | None, down_KI: Tensor, up_OK: Tensor, *, scale: float
) -> Tensor:
    """[..., O] a frozen map with what its adapter adds, with gradients of states and adapter.

        y = W x + bias + scale U D x

    Autograd would make and keep five tensors for it, most of them as large as the result; here the adapter's part is
    added where the map's own part stands, on the way back too. Autocast rounds the operands and what products make.

    Args:
        states: [..., I].
        weight_OI, bias_O: [O, I] and [O] or None, neither learns.
        down_KI, up_OK: [K, I] and [O, K], for rank K.
        scale: dimensionless.

    Source: arXiv:2106.09685.
    """
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_OI.dtype
    bias_O = None if bias_O is None else rounded(bias_O, dtype)
    with torch.autocast(device, enabled=False):
        made: Tensor = _Adapted.apply(
            states.to(dtype), rounded(weight_OI, dtype), bias_O, down_KI.to(dtype), up_OK.to(dtype), scale
        )
        return made


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight_OI: Tensor, bias_O: Tensor | None, down_KI: Tensor, up_OK: Tensor, scale: float
    ) -> Tensor:
        states_NI = states.flatten(0, -2)
        narrow_NK = states_NI @ down_KI.T
        made_NO = torch.nn.functional.linear(states_NI, weight_OI, bias_O).addmm_(narrow_NK, up_OK.T, alpha=scale)
        ctx.scale = scale
        ctx.save_for_backward(states, weight_OI, down_KI, up_OK, narrow_NK)
        return made_NO.unflatten(0, states.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight_OI, down_KI, up_OK, narrow_NK = ctx.saved_tensors
        grad_NO = grad.flatten(0, -2)
        narrow_grad_NK = (grad_NO @ up_OK).mul_(ctx.scale)
        states_grad = None
        if ctx.needs_input_grad[0]:
            states_grad = (grad_NO @ weight_OI).addmm_(narrow_grad_NK, down_KI).unflatten(0, states.shape[:-1])
        down_grad_KI = narrow_grad_NK.T @ states.flatten(0, -2)
        up_grad_OK = (grad_NO.T @ narrow_NK).mul_(ctx.scale)
        return states_grad, None, None, down_grad_KI, up_grad_OK, None
