"""Products with weights, where a CPU does them faster in another way than `torch.nn.functional.linear`.

Without AVX512-BF16 or AMX a bfloat16 product is done in float32 in any case, a few numbers at a time: a third of the
speed of a float32 product. So both sides are widened once, multiplied, and the result is rounded. A product of few rows
reads the weight more than it multiplies: a layout made for that is read faster.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# With fewer rows than that, widening the weight costs more than the product.
_LEAST_ROWS = 32
# Of a float32 weight with fewer numbers than that, calling oneDNN costs more than its layout saves.
_WORTH_LAYING_OUT = 1 << 18


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


class FewRows:
    """A linear map for many products of few rows, without gradients, whose weight stays as it is meanwhile.

    On a CPU the weight is copied into oneDNN's own layout. Measured with 3 to 32 rows on one with AVX-512 and AMX: up
    to 2.7 times faster in float32, 1.2 to 2 in bfloat16.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        """Both of one type: the products' and the result's."""
        self._dtype, self._bias_O = weight_OI.dtype, bias_O
        self.laid_out = _lays_out(weight_OI)
        self._weight_OI = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach()) if self.laid_out else weight_OI

    def __call__(self, states_RI: Tensor) -> Tensor:
        """[R, O] states W^T + bias."""
        states_RI = states_RI.to(self._dtype)
        if not self.laid_out:
            return torch.nn.functional.linear(states_RI, self._weight_OI, self._bias_O)
        made_RO: Tensor = torch.ops.mkldnn._linear_pointwise(states_RI, self._weight_OI, self._bias_O, "none", [], "")
        return made_RO


def _lays_out(weight_OI: Tensor) -> bool:
    return (
        weight_OI.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and (
            (weight_OI.dtype == torch.float32 and weight_OI.numel() >= _WORTH_LAYING_OUT)
            or (weight_OI.dtype == torch.bfloat16 and native())
        )
    )


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
