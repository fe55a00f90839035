"""Products in bfloat16 on a CPU that has no units for them: of the same rounded numbers, in float32.

Without AVX512-BF16 or AMX a bfloat16 product is done in float32 in any case, a few numbers at a time: a third of the
speed of a float32 product. So both sides are widened once, multiplied, and the result is rounded.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# With fewer rows than that, widening the weight costs more than the product.
_LEAST_ROWS = 32


@cache
def native() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def wide(tensor: Tensor) -> Tensor:
    """`tensor`, in float32 where it is bfloat16 on a CPU that is faster so."""
    return tensor.float() if tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" and not native() else tensor


def linear(states: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """[..., O] `torch.nn.functional.linear`; in autocast to bfloat16, on a CPU that has no units for it, at the speed
    of float32: states, weight, bias and result are rounded as autocast does it, sums are float32.

    Args:
        states: [..., I], carries grad.
        weight_OI: [O, I], carries grad.
        bias_O: [O], carries grad, or None.
    """
    few = states.numel() < _LEAST_ROWS * states.shape[-1]
    if few or not _widens(states):
        return torch.nn.functional.linear(states, weight_OI, bias_O)
    with torch.autocast("cpu", enabled=False):
        made: Tensor = _Linear.apply(states.to(torch.bfloat16), weight_OI, bias_O)
        return made


def _widens(states: Tensor) -> bool:
    return (
        states.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not native()
    )


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16).float()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight_OI)
        ctx.bias_type = None if bias_O is None else bias_O.dtype
        bias_O = None if bias_O is None else _rounded(bias_O)
        return torch.nn.functional.linear(states.float(), _rounded(weight_OI), bias_O).to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight_OI = ctx.saved_tensors
        grad = grad.float()
        grad_NO = grad.flatten(0, -2)
        states_grad = weight_grad_OI = bias_grad_O = None
        if ctx.needs_input_grad[0]:
            states_grad = (grad @ _rounded(weight_OI)).to(states.dtype)
        if ctx.needs_input_grad[1]:
            weight_grad_OI = (grad_NO.t() @ states.float().flatten(0, -2)).to(weight_OI.dtype)
        if ctx.needs_input_grad[2]:
            bias_grad_O = grad_NO.sum(0).to(ctx.bias_type)
        return states_grad, weight_grad_OI, bias_grad_O
