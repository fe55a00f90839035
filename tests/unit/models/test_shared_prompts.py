"""Behind one copy of their prompt, a group's responses have the log-probs and gradients that they have apart."""

import logging

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlpipe.config.schema import Adapter
from rlpipe.dataio.collate import collate
from rlpipe.errors import ShapeError
from rlpipe.models.forward import response_stats
from rlpipe.models.learner import learner
from rlpipe.models.shared_prompts import shared_prompts, shares_prompts, stats_behind_shared_prompts

SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
# Two groups, not side by side, of different prompt lengths; responses of different lengths.
LONG, SHORT = (5, 6, 7, 8), (9,)
EXAMPLES = [(LONG, (8, 9, 10, 1)), (SHORT, (11, 1)), (LONG, (12, 13, 1)), (LONG, (1,)), (SHORT, (14, 15, 16, 17, 1))]
GROUPS = torch.tensor([7, 2, 7, 7, 2])


def _model(kind=Qwen2ForCausalLM, config=Qwen2Config, **more):
    torch.manual_seed(0)
    model = kind(config(**SHAPE, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform, so that a sibling seen shows
    return model


def _both(model, batch, temperature):
    apart = response_stats(model, batch, temperature=temperature)
    shared = shared_prompts(batch, GROUPS)
    return apart, stats_behind_shared_prompts(model, batch, shared, temperature=temperature)


def _loss(stats):
    factor = torch.arange(1.0, 1 + stats.logp_BT.numel()).view_as(stats.logp_BT)
    return (factor * (stats.logp_BT + 0.3 * stats.entropy_BT) + stats.plain_logp_BT.square()).sum()


def test_the_layout_is_a_prompt_and_its_responses():
    shared = shared_prompts(collate(EXAMPLES, 0), GROUPS)
    assert shared.ids_GL.tolist() == [
        [5, 6, 7, 8, 8, 9, 10, 1, 12, 13, 1, 1],
        [9, 11, 1, 14, 15, 16, 17, 1, 0, 0, 0, 0],
    ]
    assert shared.position_GL[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 4]
    assert shared.segment_GL[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3]
    # The prompt's last token, at column 3, is before the first token of each response.
    assert shared.before_BT[0].tolist()[:4] == [3, 4, 5, 6]
    assert shared.before_BT[2].tolist()[:3] == [3, 8, 9]
    assert shared.before_BT[1].tolist()[:2] == [12, 13]  # the second group's row starts at 12
    # The second token of the second response sees the prompt, the token before it and itself.
    assert shared.seen()[0, 9].nonzero().flatten().tolist() == [0, 1, 2, 3, 8, 9]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_log_probs_and_gradients_are_those_of_the_plain_way(attention, temperature):
    # Norms and rotations of transformers are float32 whatever the weights, so that is what can be compared: gradients
    # within 1e-5 of their tensor's largest, as the sums run in another order.
    model, batch = _model(attn_implementation=attention), collate(EXAMPLES, 0)
    apart, together = _both(model, batch, temperature)
    real = batch.response_mask_BT
    for name in ("logp_BT", "plain_logp_BT", "entropy_BT"):
        torch.testing.assert_close(getattr(together, name), getattr(apart, name), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.hidden_BTH[real], apart.hidden_BTH[real], rtol=1e-4, atol=1e-4)
    assert torch.equal(together.greedy_BT, apart.greedy_BT)
    plain, ours = (torch.autograd.grad(_loss(stats), list(model.parameters())) for stats in (apart, together))
    for gradient, expected in zip(ours, plain, strict=True):
        assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_under_lora_too():
    model, batch = learner(_model(), Adapter(rank=2, alpha=4, dropout=0.0)), collate(EXAMPLES, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    assert shares_prompts(model)
    apart, together = _both(model, batch, 1.0)
    torch.testing.assert_close(together.logp_BT, apart.logp_BT, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_too():
    # Three significant digits in every layer.
    model, batch = _model(), collate(EXAMPLES, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        apart, together = _both(model, batch, 1.0)
    assert (together.logp_BT - apart.logp_BT).abs().max() < 0.3


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        (lambda: _model(LlamaForCausalLM, LlamaConfig), True),
        (lambda: _model(MistralForCausalLM, MistralConfig, sliding_window=6), False),
        # Its positions are distances in the row, made from a mask of its own.
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=32, n_layer=2, n_head=4)), False),
    ],
)
def test_a_model_that_cannot_is_found_out_and_said(model, shares, caplog):
    with caplog.at_level(logging.WARNING):
        assert shares_prompts(model()) is shares
    assert ("prompts are read once for each response" in caplog.text) is not shares


def test_different_prompts_in_a_group_are_refused():
    with pytest.raises(ShapeError, match="group 7: its rows have different prompts"):
        shared_prompts(collate([*EXAMPLES[:-1], (SHORT, (3,))], 0), torch.tensor([7, 7, 7, 7, 7]))
