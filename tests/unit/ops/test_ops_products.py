"""A product in bfloat16 without units for it: the numbers that autocast rounds, summed in float32."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from rlpipe.ops import products
from rlpipe.ops.products import FewRows, few_rows, linear, rounded, wide

ROWS, WIDTH, OUT = 40, 24, 8


@pytest.fixture(params=[True, False], ids=["with units", "without units"])
def units(request, monkeypatch):
    monkeypatch.setattr(products, "native", lambda: request.param)
    return request.param


def _operands(rows=ROWS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, rows // 2, WIDTH), (OUT, WIDTH), (OUT,)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def _rounded(tensor):
    return tensor.detach().bfloat16().double()


def test_only_a_cpu_without_units_widens_and_only_bfloat16(units):
    number = torch.tensor([1.0])
    assert wide(number.bfloat16()).dtype == (torch.bfloat16 if units else torch.float32)
    assert wide(number.half()).dtype == torch.float16
    assert wide(number) is number


def test_outside_of_autocast_it_is_torchs(units):
    states, weight, bias = _operands()
    assert torch.equal(linear(states, weight, bias), functional.linear(states, weight, bias))


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rows", [ROWS, 2])  # fewer rows are not worth it
def test_result_and_gradients_are_those_of_rounded_numbers(units, has_bias, rows):
    states, weight, bias = _operands(rows)
    bias = bias if has_bias else None
    with torch.autocast("cpu", torch.bfloat16):
        made = linear(states, weight, bias)
    assert made.dtype == torch.bfloat16
    exact = functional.linear(_rounded(states), _rounded(weight), None if bias is None else _rounded(bias))
    # Half a unit in the last of 8 bits, where all is rounded once.
    torch.testing.assert_close(made.double(), exact, rtol=2**-8, atol=1e-6)

    grad = torch.randn(made.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    made.backward(grad)
    rows_grad = grad.double().flatten(0, 1)
    torch.testing.assert_close(states.grad.double(), grad.double() @ _rounded(weight), rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(
        weight.grad.double(), rows_grad.t() @ _rounded(states).flatten(0, 1), rtol=2**-8, atol=1e-6
    )
    if bias is not None:
        torch.testing.assert_close(bias.grad.double(), rows_grad.sum(0), rtol=2**-8, atol=1e-6)
    assert all(operand is None or operand.grad.dtype == torch.float32 for operand in (states, weight, bias))


def test_what_needs_no_gradient_gets_none(monkeypatch):
    monkeypatch.setattr(products, "native", lambda: False)
    states, weight, bias = _operands()
    weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        linear(states, weight, bias).sum().backward()
    assert weight.grad is None
    assert states.grad is not None


def test_weights_in_bfloat16_get_gradients_in_bfloat16(monkeypatch):
    monkeypatch.setattr(products, "native", lambda: False)
    operands = _operands(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        linear(*operands).sum().backward()
    assert {operand.grad.dtype for operand in operands} == {torch.bfloat16}


def test_a_frozen_weight_is_rounded_once_and_again_when_it_was_written_to():
    weight = nn.Parameter(torch.randn(OUT, WIDTH), requires_grad=False)
    made = rounded(weight, torch.bfloat16)
    assert torch.equal(made, weight.bfloat16())
    assert rounded(weight, torch.bfloat16) is made
    assert rounded(weight, torch.float16).dtype == torch.float16
    with torch.no_grad():
        weight.add_(1)
    assert torch.equal(rounded(weight, torch.bfloat16), weight.bfloat16())
    assert rounded(weight, torch.float32) is weight


def test_of_what_learns_or_only_reads_or_is_gone_nothing_is_kept():
    weight = nn.Parameter(torch.randn(OUT, WIDTH))
    assert rounded(weight, torch.bfloat16) is not rounded(weight, torch.bfloat16)
    assert rounded(weight, torch.bfloat16).requires_grad
    weight.requires_grad_(False)
    known = products._as_rounded._known
    before = len(known)
    with torch.no_grad():
        assert rounded(weight, torch.bfloat16) is not rounded(weight, torch.bfloat16)
    assert len(known) == before
    rounded(weight, torch.bfloat16)
    assert len(known) == before + 1
    del weight
    assert len(known) == before


def test_few_rows_of_a_frozen_weight_are_laid_out_once_if_asked_for_and_again_when_it_was_written_to():
    weight, states = nn.Parameter(torch.randn(OUT, WIDTH), requires_grad=False), torch.randn(3, WIDTH)
    assert few_rows(weight, torch.float32, keep=False) is not few_rows(weight, torch.float32, keep=False)
    made = few_rows(weight, torch.float32, keep=True)
    assert few_rows(weight, torch.float32, keep=True) is made
    with torch.no_grad():
        weight.add_(1)
    torch.testing.assert_close(few_rows(weight, torch.float32, keep=True)(states), states @ weight.t())
    weight.requires_grad_(True)
    assert few_rows(weight, torch.float32, keep=True) is not few_rows(weight, torch.float32, keep=True)


def test_few_rows_are_a_copy():
    for shape in ((OUT, WIDTH), (1, WIDTH), (OUT, 1), (512, 512)):
        weight = torch.randn(shape)
        states = torch.randn(3, shape[1])
        map_of = FewRows(weight)
        before = map_of(states)
        weight.zero_()
        assert torch.equal(map_of(states), before)


def test_frozen_or_not_a_product_is_the_same(units):
    states, weight, bias = _operands()
    with torch.autocast("cpu", torch.bfloat16):
        learning = linear(states, weight, bias)
        frozen = linear(states, nn.Parameter(weight.detach(), requires_grad=False), bias)
    assert torch.equal(frozen, learning)
    (expected,) = torch.autograd.grad(learning.sum(), states)
    assert torch.equal(torch.autograd.grad(frozen.sum(), states)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 3, 40])
@pytest.mark.parametrize("width", [WIDTH, 512])  # one weight that is worth laying out in float32, one that is not
def test_few_rows_are_multiplied_as_always(width, rows, has_bias, dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(512, width, generator=generator).to(dtype)
    bias = torch.randn(512, generator=generator).to(dtype) if has_bias else None
    states = torch.randn(rows, width, generator=generator)
    made = FewRows(weight, bias)(states)
    assert made.dtype == dtype
    exact = functional.linear(states.to(dtype).double(), weight.double(), None if bias is None else bias.double())
    rtol, atol = (1e-5, 1e-4) if dtype == torch.float32 else (2**-8, 1e-4)
    torch.testing.assert_close(made.double(), exact, rtol=rtol, atol=atol)


def test_a_weight_is_laid_out_where_that_is_faster(units):
    large, small = torch.zeros(512, 512), torch.zeros(8, 8)
    assert products._lays_out(large)
    assert not products._lays_out(small)
    assert products._lays_out(small.bfloat16()) == units
    assert not products._lays_out(large.double())
