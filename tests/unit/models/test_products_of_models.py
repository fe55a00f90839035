"""Loaded models compute their linear maps our way where the machine gains by it, and stay the models that they are."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlpipe.models import products as of_models
from rlpipe.models.products import _forward, with_own_products
from rlpipe.ops import products

SHAPE = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
IDS = torch.arange(40).remainder(20).unsqueeze(0)


def _without_units(monkeypatch):
    for module in (of_models, products):
        monkeypatch.setattr(module, "native", lambda: False)


def _own(model):
    return [m for m in model.modules() if getattr(m.forward, "__func__", None) is _forward]


def _gradients(model):
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=IDS).logits.float().square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_gradients_in_bfloat16_stay(monkeypatch):
    _without_units(monkeypatch)
    torch.manual_seed(0)
    plain = LlamaForCausalLM(LlamaConfig(**SHAPE))
    ours = copy.deepcopy(plain)
    with_own_products(ours)
    assert len(_own(ours)) == 2 * 7 + 1  # of each layer, and the head
    expected = _gradients(plain)
    assert (_gradients(ours) - expected).norm() < 0.01 * expected.norm()  # bfloat16 has 8 bits


def test_in_float32_not_a_bit_changes(monkeypatch):
    _without_units(monkeypatch)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    plain = model(input_ids=IDS).logits
    with_own_products(model)
    assert torch.equal(model(input_ids=IDS).logits, plain)


def test_a_copy_computes_with_its_own_weights(monkeypatch):
    _without_units(monkeypatch)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with_own_products(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert not copied(input_ids=IDS).logits.eq(0).all()


@pytest.mark.parametrize("has", [True, False])
def test_where_the_machine_has_units_nothing_is_changed(has, monkeypatch):
    monkeypatch.setattr(of_models, "native", lambda: has)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with_own_products(model)
    assert bool(_own(model)) != has
