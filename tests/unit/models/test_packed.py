"""Read without padding, behind shared prompts, tokens have the hidden states, log-probs and gradients that they have
when every response is read with a prompt of its own."""

import logging

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlpipe.config.schema import Adapter
from rlpipe.dataio.collate import collate
from rlpipe.models.decoder import parts_of
from rlpipe.models.forward import read, read_padded, sequence_scores, stats_of, token_scores
from rlpipe.models.learner import learner
from rlpipe.models.packed import packs
from rlpipe.models.packing import Unfolded, pack

SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
LONG, SHORT, OTHER = (5, 6, 7, 8), (9,), (20, 21)
EXAMPLES = [
    (LONG, (8, 9, 10, 1)), (SHORT, (11, 1)), (LONG, (12, 13, 1)), (OTHER, (14, 1)),
    (LONG, (1,)), (SHORT, (14, 15, 16, 17, 1)),
]  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen2, eager": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, attn_implementation="eager")),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE)),
    # Parts of the same names, put together in another way.
    "granite, half of each": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, residual_multiplier=0.5)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
}
# Whose last layer is not put together as Llama's is.
WIDE = {"granite, half of each", "gpt2"}
OTHERS = {
    "a window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=6)),
    "a softcap in attention": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, head_dim=8, layer_types=["full_attention"] * 2)
    ),
    # Its positions are distances in the row, made from a mask of its own.
    "distances": lambda: BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=32, n_layer=2, n_head=4)),
}


def _model(make):
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform, so that a sibling seen shows
    return model


def _both(model, batch, temperature=1.0):
    parts = parts_of(model)
    return [
        stats_of(way(parts.decoder, batch), batch, parts.head, temperature=temperature) for way in (read_padded, read)
    ]


def _loss(stats):
    factor = torch.arange(1.0, 1 + stats.logp_BT.numel()).view_as(stats.logp_BT)
    values = stats.states.scores(torch.nn.Linear(32, 1).requires_grad_(False))[:, :-1]
    each = factor * (stats.logp_BT + 0.3 * stats.entropy_BT) + stats.plain_logp_BT.square()
    return (each + values * (stats.logp_BT != 0)).sum()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", MODELS)
def test_log_probs_and_gradients_are_those_of_the_padded_way(name, temperature):
    # Norms and rotations of transformers are float32 whatever the weights, so that is what can be compared: gradients
    # within 2e-5 of their tensor's largest, as the sums run in another order.
    model, batch = _model(MODELS[name]), collate(EXAMPLES, 0)
    assert packs(parts_of(model).decoder)
    apart, together = _both(model, batch, temperature)
    for key in ("logp_BT", "plain_logp_BT", "entropy_BT"):
        torch.testing.assert_close(getattr(together, key), getattr(apart, key), rtol=1e-5, atol=2e-5)
    assert torch.equal(together.greedy_BT, apart.greedy_BT)
    gradients = []
    for stats in (apart, together):
        torch.manual_seed(1)
        gradients.append(torch.autograd.grad(_loss(stats), list(model.parameters()), allow_unused=True))
    for expected, gradient in zip(*gradients, strict=True):
        if expected is not None:
            assert (gradient - expected).abs().max() <= 2e-5 * expected.abs().max() + 1e-5


def test_prompts_longer_than_a_call_is_worth_are_read_tree_by_tree():
    # Trees of very different sizes, so that some stand alone and unpadded.
    model = _model(lambda: Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, "max_position_embeddings": 512})))
    draw = torch.Generator().manual_seed(0)
    prompts = [tuple(torch.randint(1, 40, (n,), generator=draw).tolist()) for n in (300, 250, 30, 20)]
    batch = collate([(prompt, (*prompt[:9], k)) for prompt in prompts for k in range(1, 4)], 0)
    apart, together = _both(model, batch)
    torch.testing.assert_close(together.logp_BT, apart.logp_BT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_long_branches_are_read_behind_copies_of_their_prompt(name):
    config = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, "max_position_embeddings": 512})),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=512)),
    }
    model, draw = _model(config[name]), torch.Generator().manual_seed(0)

    def text(length):
        return tuple(torch.randint(1, 40, (length,), generator=draw).tolist())

    long = [(LONG, text(length)) for length in (300, 350, 300, 342)]
    batch = collate([long[0], *EXAMPLES, *long[1:], (OTHER, text(5))], 0)
    assert [type(trees) for trees in pack(batch).trees].count(Unfolded) == 1
    apart, together = _both(model, batch)
    torch.testing.assert_close(together.logp_BT, apart.logp_BT, rtol=1e-4, atol=1e-4)
    gradients = []
    for stats in (apart, together):
        gradients.append(torch.autograd.grad(stats.logp_BT.sum(), list(model.parameters()), allow_unused=True))
    for expected, gradient in zip(*gradients, strict=True):
        if expected is not None:
            assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_scores_of_a_scorer_are_those_of_the_padded_way():
    torch.manual_seed(0)
    model = Qwen2ForSequenceClassification(Qwen2Config(**SHAPE, num_labels=1)).eval()
    batch = collate(EXAMPLES, 0)
    assert packs(model.model)
    expected_BS = read_padded(model.model, batch).scores(model.score)
    real_BS = torch.nn.functional.pad(batch.response_mask_BT, (1, 0), value=True)
    torch.testing.assert_close(token_scores(model, batch)[real_BS], expected_BS[real_BS], rtol=1e-4, atol=1e-5)
    last_B1 = batch.response_mask_BT.sum(1, keepdim=True)
    torch.testing.assert_close(
        sequence_scores(model, batch), expected_BS.gather(1, last_B1).squeeze(1), rtol=1e-4, atol=1e-5
    )


def test_under_lora_too():
    model, batch = learner(_model(MODELS["qwen2"]), Adapter(rank=2, alpha=4, dropout=0.0)), collate(EXAMPLES, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    assert packs(parts_of(model).decoder)
    apart, together = _both(model, batch)
    torch.testing.assert_close(together.logp_BT, apart.logp_BT, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_too():
    # Three significant digits in every layer.
    model, batch = _model(MODELS["qwen2"]), collate(EXAMPLES, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        apart, together = _both(model, batch)
    assert (together.logp_BT - apart.logp_BT).abs().max() < 0.3


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_cannot_is_found_out_said_once_and_read_padded(name, caplog):
    model, batch = _model(OTHERS[name]), collate(EXAMPLES, 0)
    decoder = parts_of(model).decoder
    with caplog.at_level(logging.WARNING), torch.no_grad():
        assert not packs(decoder)
        assert torch.equal(read(decoder, batch).states_NH, read_padded(decoder, batch).states_NH)
    assert caplog.text.count("cannot read packed rows") == 1


def test_the_model_attends_its_own_way_afterwards():
    model = _model(MODELS["llama"])
    own = model.config._attn_implementation
    read(model.model, collate(EXAMPLES, 0))
    assert model.config._attn_implementation == own


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_computes_what_is_read_where_that_is_the_same(name):
    decoder = parts_of(_model(MODELS[name])).decoder
    assert packs(decoder)
    seen = []
    last = decoder.h[-1] if name == "gpt2" else decoder.layers[-1]
    last.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    states = read(decoder, collate([(LONG, (9, 1)), (LONG, (1,))], 0)).states_NH
    assert (seen, len(states)) == ([7 if name in WIDE else 4], 4)
