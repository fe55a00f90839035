"""Loaded models compute their norms our way where that is theirs, and stay the models that they are."""

import copy

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rlpipe.models.norms import _forward, with_own_norms
from tests.unit.models.replaced import IDS, SHAPE, computed_by


class _ScaledRMSNorm(nn.Module):
    """Named like one and configured like one, but the weight counts from 1."""

    def __init__(self):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.zeros(4)), 1e-6

    def forward(self, states):
        return (1 + self.weight) * states / (states.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt()


@pytest.mark.parametrize(
    ("kind", "config", "norms"), [(LlamaForCausalLM, LlamaConfig, 5), (Qwen3ForCausalLM, Qwen3Config, 9)]
)
def test_logits_and_gradients_stay(kind, config, norms):
    torch.manual_seed(0)
    model = kind(config(**SHAPE))
    ours = copy.deepcopy(model)
    with_own_norms(ours)
    assert len(computed_by(ours, _forward)) == norms
    assert not computed_by(model, _forward)
    for each in (model, ours):
        each(input_ids=IDS).logits.square().sum().backward()
    torch.testing.assert_close(ours(input_ids=IDS).logits, model(input_ids=IDS).logits)
    for (name, mine), (_, theirs) in zip(ours.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_copy_computes_with_its_own_weights():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with_own_norms(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.model.norm.weight.zero_()
    assert not copied(input_ids=IDS).logits.eq(0).all()


@pytest.mark.parametrize("model", [_ScaledRMSNorm(), Gemma2ForCausalLM(Gemma2Config(**SHAPE))])
def test_other_norms_stay_as_they_are(model):
    with_own_norms(model)
    assert not computed_by(model, _forward)


def test_in_another_type_a_norm_is_the_models_own():
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with_own_norms(model)
    norm, states = model.model.norm, torch.randn(2, 16).bfloat16()
    assert torch.equal(norm(states), type(norm).forward(norm, states))
