"""Log-probs through decoder and head are those of the model's own logits, whatever the model does to them."""

import logging

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from rlpipe.config.schema import Adapter
from rlpipe.dataio.collate import collate
from rlpipe.models.decoder import parts_of
from rlpipe.models.forward import ResponseLogits, States, response_logits, response_states, response_stats
from rlpipe.models.learner import learner

EXAMPLES = [((5, 6, 7), (8, 9, 10, 1)), ((5,), (11, 1)), ((6, 7), (12, 13, 1))]
SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


class _Doubling(LlamaForCausalLM):
    """A model that does to its logits what no name in its config tells."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output


MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "gemma2, softcap": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=3.0)),
    "cohere, scale": lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.25)),
    "granite, divisor": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=3.0)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "doubling": lambda: _Doubling(LlamaConfig(**SHAPE)),
}


def _model(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform, where a softcap bends
    return model


def _own(model, batch):
    """What stands in the model's own logits, through autograd."""
    output = model(
        input_ids=batch.ids_BL,
        attention_mask=batch.attention_BL.long(),
        position_ids=batch.position_BL,
        output_hidden_states=True,
    )
    width = batch.response_ids_BT.shape[1] + 1
    states_BLH = output.hidden_states[-1]
    place_BL = torch.arange(states_BLH.shape[0] * states_BLH.shape[1]).view(states_BLH.shape[:2])
    return ResponseLogits(output.logits[:, -width:-1], States(states_BLH.flatten(0, 1), place_BL[:, -width:]))


def _numbers(stats, batch):
    states_MH = stats.states.before(batch.response_mask_BT)
    return stats.logp_BT, stats.plain_logp_BT, stats.entropy_BT, states_MH


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("name", MODELS)
def test_stats_and_gradients_are_those_of_the_models_own_logits(name, temperature):
    model, batch = _model(name), collate(EXAMPLES, 0)

    def gradients(stats):
        model.zero_grad()
        (stats.logp_BT * 2 + stats.plain_logp_BT.square() + stats.entropy_BT * 3).sum().backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    own = _own(model, batch).stats(batch, temperature=temperature)
    ours = response_stats(model, batch, temperature=temperature)
    for value, expected in zip(_numbers(ours, batch), _numbers(own, batch), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.greedy_BT, own.greedy_BT)
    expected = gradients(own)
    for key, gradient in gradients(response_stats(model, batch, temperature=temperature)).items():
        assert (gradient - expected[key]).abs().max() <= 1e-4 * expected[key].abs().max() + 1e-6, key


@pytest.mark.parametrize("name", MODELS)
def test_all_logits_are_the_models_own(name):
    model, batch = _model(name), collate(EXAMPLES, 0)
    with torch.no_grad():
        ours, own, real = response_logits(model, batch), _own(model, batch), batch.response_mask_BT
        torch.testing.assert_close(ours.logits_BTV[real], own.logits_BTV[real], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            response_states(model, batch).before(real), own.states.before(real), rtol=1e-4, atol=1e-4
        )


def test_what_the_config_does_not_tell_is_found_out_and_said_once(caplog):
    model = _model("doubling")
    with caplog.at_level(logging.WARNING):
        assert parts_of(model) is None
        assert parts_of(model) is None
    assert caplog.text.count("_Doubling makes its logits in a way of its own") == 1
    assert parts_of(_model("llama")) is not None


def test_a_run_in_bfloat16_is_no_reason(tiny):
    with torch.autocast("cpu", torch.bfloat16):
        assert parts_of(tiny) is not None


def test_values_are_0_where_masked_and_nothing_flows_back_from_there(tiny):
    batch = collate(EXAMPLES, 0)
    stats = response_stats(tiny, batch, temperature=1.0)
    for value in (stats.logp_BT, stats.plain_logp_BT, stats.entropy_BT, stats.greedy_BT):
        assert not value[~batch.response_mask_BT].any()
    (stats.logp_BT * ~batch.response_mask_BT).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in tiny.parameters())


def test_under_lora_the_adapter_learns_and_the_head_does_not(tiny):
    policy, batch = learner(tiny, Adapter(rank=2, alpha=4, dropout=0.0)), collate(EXAMPLES, 0)
    assert parts_of(policy) is not None
    response_stats(policy, batch, temperature=1.0).logp_BT.sum().backward()
    learned = {name for name, p in policy.named_parameters() if p.grad is not None}
    assert learned == {name for name, _ in policy.named_parameters() if "lora" in name}


def test_trying_out_a_model_leaves_no_trace(tiny):
    tiny.train()
    tiny.lm_head.eval()
    before = torch.get_rng_state()
    assert parts_of(tiny) is not None
    assert torch.equal(torch.get_rng_state(), before)
    assert tiny.training
    assert tiny.model.layers[0].training
    assert not tiny.lm_head.training
