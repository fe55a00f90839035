"""Loaded models compute their linear maps our way where the machine gains by it, and stay the models that they are."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlpipe.models.products import _forward, with_own_products
from rlpipe.ops import products
from tests.unit.models.replaced import SHAPE, computed_by

IDS = torch.arange(40).remainder(20).unsqueeze(0)


@pytest.fixture(autouse=True, params=[True, False], ids=["with units", "without units"])
def units(request, monkeypatch):
    monkeypatch.setattr(products, "native", lambda: request.param)
    return request.param


def _gradients(model):
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=IDS).logits.float().square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_gradients_in_bfloat16_stay():
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SHAPE))
    ours = copy.deepcopy(plain)
    with_own_products(ours)
    assert len(computed_by(ours, _forward)) == 2 * 7 + 1  # of each layer, and the head
    expected = _gradients(plain)
    assert (_gradients(ours) - expected).norm() < 0.01 * expected.norm()  # bfloat16 has 8 bits


def test_in_float32_not_a_bit_changes():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    plain = model(input_ids=IDS).logits
    with_own_products(model)
    assert torch.equal(model(input_ids=IDS).logits, plain)


def test_a_copy_computes_with_its_own_weights():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with_own_products(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert not copied(input_ids=IDS).logits.eq(0).all()


def test_weights_that_do_not_learn_compute_the_same(units):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).requires_grad_(False)
    ours = copy.deepcopy(model)
    with_own_products(ours)
    with torch.autocast("cpu", torch.bfloat16):
        plain, first, again = (m(input_ids=IDS).logits for m in (model, ours, ours))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, plain, rtol=0, atol=0 if units else 0.01 * plain.abs().max().item())
