"""Loaded models gate our way where that is theirs, and stay the models that they are."""

import copy

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlpipe.models.gates import _forward, with_own_gates
from tests.unit.models.replaced import IDS, SHAPE, computed_by


@pytest.mark.parametrize(("kind", "config"), [(LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)])
def test_logits_and_gradients_keep_their_bits(kind, config):
    torch.manual_seed(0)
    model = kind(config(**SHAPE))
    ours = copy.deepcopy(model)
    with_own_gates(ours)
    assert len(computed_by(ours, _forward)) == 2
    assert not computed_by(model, _forward)
    for each in (model, ours):
        each(input_ids=IDS).logits.square().sum().backward()
    assert torch.equal(ours(input_ids=IDS).logits, model(input_ids=IDS).logits)
    for (name, mine), (_, theirs) in zip(ours.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad), name


def test_a_copy_computes_with_its_own_weights():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with_own_gates(model)
    copied = copy.deepcopy(model)
    before = copied(input_ids=IDS).logits
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
    assert torch.equal(copied(input_ids=IDS).logits, before)


def test_another_gate_stays_as_it_is():
    model = Gemma2ForCausalLM(Gemma2Config(**SHAPE))
    with_own_gates(model)
    assert not computed_by(model, _forward)
