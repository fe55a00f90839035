"""Adapters are computed by ours where they are what peft computes, and by peft everywhere else."""

import copy

import pytest
import torch
from peft.tuners.lora import Linear
from transformers import LlamaConfig, LlamaForCausalLM

from rlpipe.config.schema import Adapter
from rlpipe.models import adapter as module
from rlpipe.models.adapter import _forward
from rlpipe.models.learner import finished, learner
from rlpipe.models.own import release
from rlpipe.models.products import with_own_products
from rlpipe.ops import products
from tests.unit.models.replaced import IDS, SHAPE, computed_by


@pytest.fixture(autouse=True)
def units(monkeypatch):
    """Of a machine that multiplies bfloat16 numbers itself."""
    monkeypatch.setattr(products, "native", lambda: True)


@pytest.fixture
def calls(monkeypatch):
    """How often a map was computed by ours."""
    seen = []

    def counted(*operands, **given):
        seen.append(operands)
        return own(*operands, **given)

    own = module.adapted
    monkeypatch.setattr(module, "adapted", counted)
    return seen


def _policy(dropout=0.0):
    torch.manual_seed(0)
    policy = learner(LlamaForCausalLM(LlamaConfig(**SHAPE)), Adapter(rank=4, alpha=8, dropout=dropout))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return policy


def _as_peft(policy):
    plain = copy.deepcopy(policy)
    for layer in computed_by(plain, _forward):
        release(layer)
    return plain


def _gradients(policy, dtype):
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        policy(input_ids=IDS).logits.float().square().sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.bfloat16, 0.03)], ids=str)
def test_gradients_are_pefts(calls, dtype, limit):
    policy = _policy()
    expected = _gradients(_as_peft(policy), dtype)
    assert (_gradients(policy, dtype) - expected).norm() < limit * expected.norm()
    assert len(calls) == sum(type(layer) is Linear for layer in policy.modules()) == 2 * 7


def test_with_the_adapter_off_it_is_the_model_itself(calls):
    policy = _policy()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with policy.disable_adapter():
        assert torch.equal(policy(input_ids=IDS).logits, model(input_ids=IDS).logits)
    assert not calls


def test_dropout_is_pefts_while_training(calls):
    policy = _policy(dropout=0.5).train()
    policy(input_ids=IDS)
    assert not calls
    policy.eval()(input_ids=IDS)
    assert calls


def test_a_cpu_without_units_for_bfloat16_multiplies_as_linear_does(calls, monkeypatch):
    monkeypatch.setattr(products, "native", lambda: False)
    policy = _policy()
    _gradients(policy, torch.bfloat16)
    assert not calls
    _gradients(policy, torch.float32)
    assert calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_merged_model_computes_with_the_merged_weights(dtype):
    policy = _policy()
    for layer in policy.modules():
        if type(layer) is Linear:
            with_own_products(layer.base_layer)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        before = policy(input_ids=IDS).logits.float()  # with gradients: what was rounded is kept
        merged = finished(policy)(input_ids=IDS).logits.float()
    torch.testing.assert_close(merged, before, rtol=0, atol=0.05 if dtype == torch.bfloat16 else 1e-5)
