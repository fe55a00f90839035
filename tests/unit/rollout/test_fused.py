"""Steps in few operations are taken where they are the model's own, and nowhere else."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from rlpipe.config.schema import Adapter
from rlpipe.models.learner import learner
from rlpipe.ops.products import FewRows, wide
from rlpipe.rollout.fused import _Merger, fuses

SHAPE = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def _llama(**changes):
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes})).eval()


class _Changed(LlamaForCausalLM):
    pass


def _with_another_mlp():
    model = _llama()
    model.model.layers[1].mlp.forward = lambda states: 2 * states
    return model


NOT_FUSED = {
    "another design": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE)).eval(),
    "a class of somebody's own": lambda: _Changed(LlamaConfig(**SHAPE)).eval(),
    "biases in the MLP": lambda: _llama(mlp_bias=True),
    "biases behind attention": lambda: _llama(attention_bias=True),
    "another activation": lambda: _llama(hidden_act="gelu"),
    "positions that depend on the length": lambda: _llama(
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    ),
    "bfloat16": lambda: _llama().bfloat16(),
    "a forward pass that somebody changed": _with_another_mlp,
}


def test_a_plain_model_is_fused_under_an_adapter_too():
    model = _llama()
    assert fuses(model, 30)
    assert fuses(learner(model, Adapter(rank=2, alpha=4, dropout=0.0)), 30)


@torch.no_grad()
def test_in_autocast_an_adapter_is_rounded_with_its_weight_and_not_after_it():
    policy = learner(_llama(), Adapter(rank=2, alpha=4, dropout=0.0))
    mlp = policy.get_base_model().model.layers[0].mlp
    whole = []
    for linear in (mlp.gate_proj, mlp.up_proj):
        # Less than the last bit of most weights in bfloat16: lost, where each is rounded before the sum.
        linear.lora_B["default"].weight.fill_(2.0**-9)
        whole.append(linear.weight + linear.get_delta_weight("default"))
    with torch.autocast("cpu", torch.bfloat16):
        made = _Merger(torch.bfloat16).merged(mlp.gate_proj, mlp.up_proj)
    units = torch.eye(SHAPE["hidden_size"])
    assert torch.equal(made(units), FewRows(wide(torch.cat(whole).bfloat16()))(units))


@pytest.mark.parametrize("name", NOT_FUSED)
def test_what_is_not_the_same_steps_by_itself(name):
    assert not fuses(NOT_FUSED[name](), 30)
