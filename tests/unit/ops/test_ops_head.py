"""The chunked head gives the numbers and gradients of whole logits, and whole logits never exist."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from rlpipe.errors import ShapeError
from rlpipe.ops import head as module
from rlpipe.ops import products
from rlpipe.ops.head import Head, logits_of, token_stats
from rlpipe.ops.logprobs import entropy, selective_log_softmax

N, H, V = 7, 4, 11


def _random(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _inputs(dtype=torch.float64, n=N, h=H, v=V, spread=1.5):
    """Hidden states, weight, bias as leaves, and ids."""
    tensors = [_random(n, h, seed=1, dtype=dtype), _random(v, h, seed=2, dtype=dtype), _random(v, seed=3, dtype=dtype)]
    leaves = [(spread * tensor).requires_grad_() for tensor in tensors]
    return *leaves, torch.randint(v, (n,), generator=torch.Generator().manual_seed(4))


def _naive(hidden, weight, bias, ids, scale, softcap, temperature):
    """Log-probs and entropies with all logits at once, through autograd."""
    logits = scale * torch.nn.functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return selective_log_softmax(logits / temperature, ids), selective_log_softmax(logits, ids), entropy(logits)


def _ours(hidden, weight, bias, ids, scale, softcap, temperature):
    stats = token_stats(hidden, ids, Head(weight, bias, scale, softcap), temperature=temperature)
    return stats.logp_N, stats.plain_logp_N, stats.entropy_N


def _gradients(of, hidden, weight, bias, ids, *numbers):
    """Of a sum with another factor for each number, so that nothing cancels."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (hidden, weight, bias)]
    outputs = of(*leaves, ids, *numbers)
    factors = [_random(len(ids), seed=10 + i).to(output.dtype) for i, output in enumerate(outputs)]
    sum((f * output).sum() for f, output in zip(factors, outputs, strict=True)).backward()
    return [leaf.grad for leaf in leaves]


@pytest.fixture(params=["at once", "in pieces", "anew"])
def pieces(request, monkeypatch):
    """With 2 rows at a time, 7 tokens are 4 pieces, the last one smaller; kept for the backward pass, or made anew."""
    if request.param != "at once":
        monkeypatch.setattr(module, "_LEAST_ROWS", 2)
        monkeypatch.setattr(module, "_ELEMENTS", 1)
        monkeypatch.setattr(module, "_MOMENT_ELEMENTS", 1)
    if request.param == "anew":
        monkeypatch.setattr(module, "_KEPT_ELEMENTS", 1)


NUMBERS = [(1.0, None, 1.0), (1.0, None, 0.7), (1.0, 2.0, 1.0), (0.5, 3.0, 1.3), (2.0, None, 1.0)]


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_values_and_gradients_are_those_of_whole_logits(pieces, numbers):
    inputs = _inputs()
    for ours, naive in zip(_ours(*inputs, *numbers), _naive(*inputs, *numbers), strict=True):
        assert_close(ours, naive)
    for ours, naive in zip(_gradients(_ours, *inputs, *numbers), _gradients(_naive, *inputs, *numbers), strict=True):
        assert_close(ours, naive)


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_gradients_are_the_slopes(pieces, numbers):
    hidden, weight, bias, ids = _inputs()
    assert gradcheck(lambda h, w, b: _ours(h, w, b, ids, *numbers), (hidden, weight, bias))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_output_alone_has_its_gradient(pieces, which):
    # The others then have no gradient at all, not one of zeros.
    *leaves, ids = _inputs()
    assert gradcheck(lambda *some: _ours(*some, ids, 1.0, None, 0.7)[which], leaves)


def test_float32_is_within_1e5_of_float64(pieces):
    # The bound. Gradients are compared with the largest of their tensor.
    exact, single = _inputs(n=200, h=64, v=500, spread=0.5), _inputs(n=200, h=64, v=500, spread=0.5)
    single = [t.detach().float().requires_grad_() if t.is_floating_point() else t for t in single]
    for ours, naive in zip(_ours(*single, 1.0, None, 0.8), _naive(*exact, 1.0, None, 0.8), strict=True):
        assert_close(ours.double(), naive, rtol=1e-5, atol=1e-5)
    theirs = _gradients(_naive, *exact, 1.0, None, 0.8)
    for ours, naive in zip(_gradients(_ours, *single, 1.0, None, 0.8), theirs, strict=True):
        assert (ours.double() - naive).abs().max() < 1e-5 * naive.abs().max()


def test_all_logits_are_scaled_then_capped():
    # W h + b = 1 * 3 + 1 = 4 and 2 * 3 - 1 = 5; half of it 2 and 2.5; capped at 3: 3 tanh(2/3), 3 tanh(2.5/3).
    hidden, weight, bias = torch.tensor([[3.0]]), torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, -1.0])
    assert logits_of(hidden, Head(weight, bias, 1.0, None)).tolist() == [[4.0, 5.0]]
    assert logits_of(hidden, Head(weight, None, 1.0, None)).tolist() == [[3.0, 6.0]]
    assert logits_of(hidden, Head(weight, bias, 0.5, None)).tolist() == [[2.0, 2.5]]
    capped = logits_of(hidden, Head(weight, bias, 0.5, 3.0))
    assert_close(capped, torch.tensor([[3 * math.tanh(2 / 3), 3 * math.tanh(2.5 / 3)]]))
    assert_close(logits_of(hidden, Head(weight, bias, 2.0, None)), torch.tensor([[8.0, 10.0]]))


def test_the_likeliest_token_is_known():
    hidden, weight, bias, _ = _inputs()
    best = torch.nn.functional.linear(hidden, weight, bias).argmax(-1)
    head = Head(weight, bias, 1.0, None)
    assert token_stats(hidden, best, head, temperature=1.0).likeliest_N.all()
    assert not token_stats(hidden, (best + 1) % V, head, temperature=1.0).likeliest_N.any()


def test_what_needs_no_gradient_gets_none():
    # Under LoRA the head is frozen; for a reference nothing is learned.
    hidden, weight, bias, ids = _inputs()
    frozen = Head(weight.detach(), bias.detach(), 1.0, None)
    token_stats(hidden, ids, frozen, temperature=1.0).logp_N.sum().backward()
    assert weight.grad is None
    expected = torch.autograd.grad(_naive(hidden, weight, bias, ids, 1.0, None, 1.0)[0].sum(), hidden)[0]
    assert_close(hidden.grad, expected)


def test_a_graph_can_be_walked_back_twice(pieces):
    hidden, weight, bias, ids = _inputs()
    total = sum(output.sum() for output in _ours(hidden, weight, bias, ids, 1.0, None, 0.7))
    first = torch.autograd.grad(total, (hidden, weight, bias), retain_graph=True)
    second = torch.autograd.grad(total, (hidden, weight, bias))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_large_logits_lose_no_digits():
    # log-probs of x and of x + 1000 are the same; in float32 a logsumexp near 1000 would round to 6e-5.
    hidden, weight = torch.ones(1, 1), torch.tensor([[1000.0], [1001.0], [1002.0]])
    logp = token_stats(hidden, torch.tensor([0]), Head(weight, None, 1.0, None), temperature=1.0).logp_N
    assert_close(logp, torch.tensor([0.0, 1.0, 2.0]).log_softmax(0)[:1], rtol=0, atol=1e-6)


class _Largest(TorchDispatchMode):
    """The largest tensor that any operation has made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


def test_all_logits_never_exist_at_once(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_ROWS", 8)
    monkeypatch.setattr(module, "_ELEMENTS", 1)
    monkeypatch.setattr(module, "_MOMENT_ELEMENTS", 1)
    inputs = _inputs(torch.float32, n=100, h=4, v=50)  # 5,000 logits; the weights are 200 numbers, hidden states 400
    with _Largest() as naive:
        _gradients(_naive, *inputs, 1.0, None, 1.0)
    with _Largest() as ours:
        _gradients(_ours, *inputs, 1.0, None, 0.7)
    assert naive.numbers == 5_000
    assert ours.numbers == 400  # 8 rows of 50 logits, or the hidden states


@pytest.mark.parametrize("units", [True, False])
def test_autocast_multiplies_in_bfloat16_and_sums_in_float32(pieces, units, monkeypatch):
    monkeypatch.setattr(products, "native", lambda: units)
    hidden, weight, bias, ids = _inputs(torch.float32, n=40, h=32, v=64, spread=0.3)

    def rounded_logits(*operands):
        """Rounded once more only by the machine's units."""
        rounded = [operand.bfloat16() for operand in operands]
        return torch.nn.functional.linear(*(rounded if units else map(Tensor.float, rounded)))

    with torch.autocast("cpu", torch.bfloat16):
        ours = _ours(hidden, weight, bias, ids, 1.0, None, 1.0)
        plain = token_stats(hidden, ids, Head(weight, None, 1.0, None), temperature=1.0).logp_N
    assert_close(plain, selective_log_softmax(rounded_logits(hidden, weight).float(), ids))
    logits = rounded_logits(hidden, weight, bias).float()
    assert ours[0].dtype == torch.float32
    assert_close(ours[0], selective_log_softmax(logits, ids))
    assert_close(ours[2], entropy(logits))
    gradients = torch.autograd.grad(ours[0].sum(), (hidden, weight, bias))
    expected = torch.autograd.grad(selective_log_softmax(logits, ids).sum(), (hidden, weight, bias))
    for gradient, other in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - other).abs().max() < 0.02 * other.abs().max()  # bfloat16 has 8 bits


def test_no_token_is_no_work():
    hidden, weight, bias, _ = _inputs()
    stats = token_stats(hidden[:0], torch.zeros(0, dtype=torch.long), Head(weight, bias, 1.0, None), temperature=1.0)
    assert stats.logp_N.shape == (0,)
    stats.logp_N.sum().backward()
    assert weight.grad.abs().max() == 0


def test_shapes_that_do_not_fit_are_refused():
    hidden, weight, bias, ids = _inputs()
    with pytest.raises(ShapeError, match=r"hidden has shape \(7, 4\), ids \(6,\)"):
        token_stats(hidden, ids[:-1], Head(weight, bias, 1.0, None), temperature=1.0)
