"""A gated SiLU that keeps for its backward pass no more than its inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """[...] silu(gate) up, with gradients of both; the numbers are those of the two operations through autograd.

        silu(g) = g sigmoid(g)

    Autograd keeps silu(gate) as well, the largest tensor of a layer; here it is computed once more.

    Source: arXiv:2002.05202.
    """
    gated: Tensor = _SwiGLU.apply(gate, up)
    return gated


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gate, up = ctx.saved_tensors
        gate_grad = torch.ops.aten.silu_backward(grad * up, gate) if ctx.needs_input_grad[0] else None
        return gate_grad, silu(gate).mul_(grad) if ctx.needs_input_grad[1] else None
