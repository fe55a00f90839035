"""A map and its adapter in one operation: the numbers and gradients of the formula."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional
from torch.testing import assert_close

from rlpipe.ops.lora import adapted

ROWS, WIDTH, OUT, RANK, SCALE = 5, 6, 4, 2, 1.5


def _operands(dtype=torch.float64):
    """States and adapter learn, weight and bias do not."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, ROWS, WIDTH), (OUT, WIDTH), (OUT,), (RANK, WIDTH), (OUT, RANK)]
    operands = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [operand.requires_grad_(i not in (1, 2)) for i, operand in enumerate(operands)]


def _formula(states, weight, bias, down, up):
    return functional.linear(states, weight, bias) + SCALE * (states @ down.T @ up.T)


@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_the_formula(has_bias):
    states, weight, bias, down, up = _operands()
    bias = bias if has_bias else None
    made, expected = adapted(states, weight, bias, down, up, scale=SCALE), _formula(states, weight, bias, down, up)
    assert_close(made, expected)
    grad = torch.randn(made.shape, generator=torch.Generator().manual_seed(1), dtype=made.dtype)
    learning = (states, down, up)
    assert_close(torch.autograd.grad(made, learning, grad), torch.autograd.grad(expected, learning, grad))


def test_gradients_are_the_slopes():
    states, weight, bias, down, up = _operands()
    assert gradcheck(lambda s, d, u: adapted(s, weight, bias, d, u, scale=SCALE), (states, down, up))


def test_states_that_do_not_learn_get_no_gradient():
    states, weight, bias, down, up = _operands()
    adapted(states.requires_grad_(False), weight, bias, down, up, scale=SCALE).sum().backward()
    assert states.grad is None
    assert down.grad is not None


def test_in_autocast_operands_and_products_are_rounded():
    operands = _operands(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        made = adapted(*operands, scale=SCALE)
    assert made.dtype == torch.bfloat16
    states, weight, bias, down, up = (operand.detach().bfloat16().double() for operand in operands)
    narrow = (states @ down.T).bfloat16().double()
    exact = functional.linear(states, weight, bias).bfloat16().double() + SCALE * (narrow @ up.T)
    assert_close(made.double(), exact, rtol=2**-7, atol=2**-8)
    made.float().sum().backward()
    assert all(operand.grad is None or operand.grad.dtype == torch.float32 for operand in operands)


def test_an_adapter_at_zero_changes_no_bit():
    states, weight, bias, down, up = _operands(torch.float32)
    made = adapted(states, weight, bias, down, torch.zeros_like(up), scale=SCALE)
    assert torch.equal(made, functional.linear(states.flatten(0, 1), weight, bias).view_as(made))
