"""Loaded models gate our way where that is theirs, and stay the models that they are."""

import copy

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlpipe.models.gates import _forward, with_own_gates

SHAPE = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
IDS = torch.tensor([[1, 2, 3]])


def _own(model):
    return [m for m in model.modules() if getattr(m.forward, "__func__", None) is _forward]


@pytest.mark.parametrize(("kind", "config"), [(LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)])
def test_logits_and_gradients_keep_their_bits(kind, config):
    torch.manual_seed(0)
    model = kind(config(**SHAPE))
    ours = copy.deepcopy(model)
    with_own_gates(ours)
    assert len(_own(ours)) == 2
    assert not _own(model)
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
    assert not _own(model)
