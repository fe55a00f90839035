"""The gate and its gradients are those of the formula."""

import pytest
import torch
from torch.nn.functional import silu

from rlpipe.ops.gates import swiglu


def test_one_through_a_gate_of_one_is_its_sigmoid():
    # 1 / (1 + e^-1) = 0.73106
    torch.testing.assert_close(swiglu(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 5.0])), torch.tensor([0.73106, 0.0]))


def test_gradients_are_the_slopes():
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn(2, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(swiglu, sides)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_numbers_are_those_of_autograd(dtype):
    generator = torch.Generator().manual_seed(0)
    gate, up, grad = (torch.randn(5, 7, generator=generator).to(dtype) for _ in range(3))
    results = []
    for way in (swiglu, lambda g, u: silu(g) * u):
        sides = [side.clone().requires_grad_() for side in (gate, up)]
        made = way(*sides)
        made.backward(grad)
        results.append([made.detach(), *(side.grad for side in sides)])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*results, strict=True))


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_needs_no_gradient_gets_none(frozen):
    sides = [torch.ones(3).requires_grad_(side != frozen) for side in range(2)]
    swiglu(*sides).sum().backward()
    assert [side.grad is None for side in sides] == [side == frozen for side in range(2)]
