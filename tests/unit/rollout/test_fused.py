"""Steps in few operations are taken where they are the model's own, and nowhere else."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from rlpipe.config.schema import Adapter
from rlpipe.models.learner import learner
from rlpipe.rollout.fused import _Stacking, fuses

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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_an_adapter_adds_is_not_lost_in_a_weight_of_few_bits(dtype):
    policy = learner(_llama(), Adapter(rank=2, alpha=4, dropout=0.0))
    linear = policy.get_base_model().model.layers[0].mlp.down_proj
    half = SHAPE["intermediate_size"] // 2
    linear.weight.fill_(1)
    linear.lora_A["default"].weight.zero_()[:, :half] = 2.0**-3
    # 2 (scale) x 2 (ranks) x 2^-8 x 2^-3 = 2^-9: a quarter of the last bit of 1 in bfloat16.
    linear.lora_B["default"].weight.fill_(2.0**-8)
    states = torch.tensor([[1.0] * half + [-1.0] * half])  # the weight's own part cancels out
    expected = torch.full((1, SHAPE["hidden_size"]), half * 2.0**-9, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        made = _Stacking(dtype).stacked(linear)
    assert torch.equal(made(states), expected)


@pytest.mark.parametrize("name", NOT_FUSED)
def test_what_is_not_the_same_steps_by_itself(name):
    assert not fuses(NOT_FUSED[name](), 30)
