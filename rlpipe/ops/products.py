"""Products with weights, where a CPU does them faster in another way than `torch.nn.functional.linear`.

Without AVX512-BF16 or AMX a bfloat16 product is done in float32 in any case, a few numbers at a time: a third of the
speed of a float32 product. So both sides are widened once, multiplied, and the result is rounded. A product of few rows
reads the weight more than it multiplies: a layout made for that is read faster. And autocast rounds a weight that does
not learn for each product anew, and keeps what it made until the way back: such a weight is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

# With fewer rows than that, widening the weight costs more than the product.
_LEAST_ROWS = 32
# Of a float32 weight with fewer numbers than that, calling oneDNN costs more than its layout saves.
_WORTH_LAYING_OUT = 1 << 18

T = TypeVar("T")


class _Made(Generic[T]):
    """What was made of parameters that do not learn, for as long as they live and nobody writes to them.

    Who writes to one where autograd does not see it (`weight.data`) calls `torch.autograd.graph.increment_version`.
    """

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()

    def of(self, weight: Tensor, dtype: torch.dtype, make: Callable[[], T], *, keep: bool) -> T:
        """`make()`, for this type; what is not to be kept is found here if it already was."""
        if weight.requires_grad or not isinstance(weight, nn.Parameter):
            return make()
        state = weight._version, weight.device, dtype
        known, made = self._known.get(weight, (None, None))
        if known != state:
            made = make()
            if keep:
                self._known[weight] = state, made
        kept: T = made
        return kept


@cache
def native() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def widens(device: str) -> bool:
    """Whether autocast asks for bfloat16 on a CPU that is faster in float32."""
    return (
        device == "cpu"
        and torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.bfloat16
        and not native()
    )


def wide(tensor: Tensor) -> Tensor:
    """`tensor`, in float32 where it is bfloat16 on a CPU that is faster so."""
    return tensor.float() if tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" and not native() else tensor


def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight.to(dtype)`; of a parameter that does not learn made once, and again when it has been written to.

    It is kept where there are gradients: there autograd would keep one for each use. Models that only read, such as a
    teacher, take no more memory than they did.
    """
    if weight.dtype == dtype:
        return weight
    return _as_rounded.of(weight, dtype, lambda: weight.to(dtype), keep=torch.is_grad_enabled())


def linear(states: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """[..., O] `torch.nn.functional.linear`. In autocast a weight that does not learn is rounded once; on a CPU without
    units for bfloat16 it goes at the speed of float32: states, weight, bias and result are rounded as autocast does it,
    sums are float32.

    Args:
        states: [..., I], carries grad.
        weight_OI: [O, I], carries grad.
        bias_O: [O], carries grad, or None.
    """
    device = states.device.type
    if widens(device) and states.numel() >= _LEAST_ROWS * states.shape[-1]:
        with torch.autocast(device, enabled=False):
            made: Tensor = _Linear.apply(states.to(torch.bfloat16), weight_OI, bias_O)
            return made
    if torch.is_autocast_enabled(device) and not weight_OI.requires_grad:
        # What learns is left to autocast, whose own memory of what it has rounded ends with its block.
        weight_OI = rounded(weight_OI, torch.get_autocast_dtype(device))
    return torch.nn.functional.linear(states, weight_OI, bias_O)


class FewRows:
    """A linear map for many products of few rows, without gradients, whose weight stays as it is meanwhile.

    On a CPU the weight is copied into oneDNN's own layout. Measured with 3 to 32 rows on one with AVX-512 and AMX: up
    to 2.7 times faster in float32, 1.2 to 2 in bfloat16. A weight too small for that is copied column by column: there
    up to twice as fast with 4 to 32 rows.

    Attributes:
        dtype: of weight, bias and result.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        """Both of one type."""
        self.dtype, self._bias_O = weight_OI.dtype, bias_O
        self.laid_out = _lays_out(weight_OI)
        weight_OI = weight_OI.detach()
        if self.laid_out:
            self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI)
        else:
            self._weight = weight_OI.t().clone(memory_format=torch.contiguous_format)

    def __call__(self, states_RI: Tensor) -> Tensor:
        """[R, O] states W^T + bias."""
        states_RI = states_RI.to(self.dtype)
        if self.laid_out:
            made_RO: Tensor = torch.ops.mkldnn._linear_pointwise(states_RI, self._weight, self._bias_O, "none", [], "")
            return made_RO
        if self._bias_O is None:
            return states_RI @ self._weight
        return torch.addmm(self._bias_O, states_RI, self._weight)


_as_rounded: _Made[Tensor] = _Made()
_as_few_rows: _Made[FewRows] = _Made()


def few_rows(weight_OI: Tensor, dtype: torch.dtype, *, keep: bool) -> FewRows:
    """`FewRows` of a weight in this type; with `keep`, of a parameter that does not learn made once, like `rounded`."""
    return _as_few_rows.of(weight_OI, dtype, lambda: FewRows(wide(rounded(weight_OI, dtype))), keep=keep)


def _lays_out(weight_OI: Tensor) -> bool:
    return (
        weight_OI.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and (
            (weight_OI.dtype == torch.float32 and weight_OI.numel() >= _WORTH_LAYING_OUT)
            or (weight_OI.dtype == torch.bfloat16 and native())
        )
    )


def _as_bfloat16(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16).float()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight_OI)
        ctx.bias_type = None if bias_O is None else bias_O.dtype
        bias_O = None if bias_O is None else _as_bfloat16(bias_O)
        return torch.nn.functional.linear(states.float(), _as_bfloat16(weight_OI), bias_O).to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight_OI = ctx.saved_tensors
        grad = grad.float()
        grad_NO = grad.flatten(0, -2)
        states_grad = weight_grad_OI = bias_grad_O = None
        if ctx.needs_input_grad[0]:
            states_grad = (grad @ _as_bfloat16(weight_OI)).to(states.dtype)
        if ctx.needs_input_grad[1]:
            weight_grad_OI = (grad_NO.t() @ states.float().flatten(0, -2)).to(weight_OI.dtype)
        if ctx.needs_input_grad[2]:
            bias_grad_O = grad_NO.sum(0).to(ctx.bias_type)
        return states_grad, weight_grad_OI, bias_grad_O
