"""Sharing prompts, leaving early and entering late cost nothing in the samples."""

import functools
import logging

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlpipe.config.schema import Adapter
from rlpipe.errors import ConfigError
from rlpipe.models.learner import learner
from rlpipe.models.runtime import precision
from rlpipe.rollout import engine as engines
from rlpipe.rollout.decode import _compacted
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.rollout.fused import FusedSteps, fuses
from rlpipe.rollout.steps import ModelSteps
from rlpipe.rollout.streams import keys, uniforms
from rlpipe.types import Request, Sampling

CPU = torch.device("cpu")
EOS = frozenset({3, 5})
SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
# Prompts of several lengths, 3 samples each.
PROMPTS = [tuple(range(6 + i, 6 + i + n)) for i, n in enumerate((9, 2, 5, 5, 1, 7))]
REQUESTS = [Request(prompt, (17, 3, p, s)) for p, prompt in enumerate(PROMPTS) for s in range(3)]
SAMPLING = Sampling(temperature=1.0, max_new_tokens=14)


def _model(kind, config, **changes):
    torch.manual_seed(0)
    model = kind(config(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Far from uniform, so that a wrong key or position shows; nothing is 0, so that a bias or a norm counts.
            parameter.mul_(3).add_(0.1 * torch.rand_like(parameter) if parameter.dim() == 1 else 0.0)
    return model


ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
FUSED = {
    "qwen2": lambda: _model(Qwen2ForCausalLM, Qwen2Config),
    "qwen3": lambda: _model(Qwen3ForCausalLM, Qwen3Config),
    "llama, stretched positions": lambda: _model(LlamaForCausalLM, LlamaConfig, rope_parameters=ROPE),
    "mistral, no window": lambda: _model(MistralForCausalLM, MistralConfig, sliding_window=None),
}
MODELS = FUSED | {
    "gemma2, window longer than any sample": lambda: _model(Gemma2ForCausalLM, Gemma2Config, sliding_window=32),
    "mistral, window shorter than a sample": lambda: _model(MistralForCausalLM, MistralConfig, sliding_window=6),
    "gemma2, every other layer with a short window": lambda: _model(Gemma2ForCausalLM, Gemma2Config, sliding_window=6),
    "lfm2, convolutions beside attention": lambda: _model(
        Lfm2ForCausalLM, Lfm2Config, layer_types=["conv", "full_attention", "conv"], norm_eps=1e-5
    ),
}


def _alone(model, request, sampling):
    """The plain way: one sample, the whole text read anew for every token. Returns: ids, log-probs."""
    key, ids, logps = keys([request.stream], CPU), [], []
    while len(ids) < sampling.max_new_tokens and (not ids or ids[-1] not in EOS):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*request.prompt_ids, *ids]]), use_cache=False).logits[0, -1]
        logp = (logits.double() / sampling.temperature).log_softmax(-1)
        ids.append(int((logp.exp().cumsum(-1) > uniforms(key, len(ids))).nonzero()[0]))
        logps.append(logp[ids[-1]].item())
    return tuple(ids), logps


@functools.cache
def _all_alone(name):
    return [_alone(MODELS[name](), request, SAMPLING) for request in REQUESTS]


def _engine(model, batch_size=64, token_budget=None, **more):
    return TransformersEngine(model, EOS, CPU, batch_size, token_budget, **more)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_sample_is_the_one_drawn_alone(name, batch_size):
    model = MODELS[name]()
    drawn = _engine(model, batch_size).generate(REQUESTS, SAMPLING)
    lengths = {len(completion.ids) for completion in drawn}
    assert len(lengths) > 3, "samples of many lengths, or nothing enters late"
    for (ids, logps), completion in zip(_all_alone(name), drawn, strict=True):
        assert completion.ids == ids
        assert completion.logps == pytest.approx(logps, abs=2e-4)
        assert completion.finished == (ids[-1] in EOS)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("batch_size", [4, 64])
def test_nor_does_it_matter_that_siblings_share_their_prompt(name, batch_size, monkeypatch):
    monkeypatch.setattr(engines, "_WORTH_SHARING", 1)
    model = MODELS[name]()
    drawn = _engine(model, batch_size).generate(REQUESTS, SAMPLING)
    for (ids, logps), completion in zip(_all_alone(name), drawn, strict=True):
        assert completion.ids == ids
        assert completion.logps == pytest.approx(logps, abs=2e-4)


@pytest.mark.parametrize("sharing", [1, 100])
@pytest.mark.parametrize("token_budget", [23, 50, 90, 200])
def test_a_token_budget_changes_no_sample(token_budget, sharing, monkeypatch):
    monkeypatch.setattr(engines, "_WORTH_SHARING", sharing)
    model = MODELS["qwen2"]()
    whole, few = (_engine(model, 64, b).generate(REQUESTS, SAMPLING) for b in (None, token_budget))
    assert [c.ids for c in few] == [c.ids for c in whole]


def test_a_token_budget_without_room_for_one_sample_is_refused():
    with pytest.raises(ConfigError, match=r"rollout.token_budget=22: one sample needs 23 tokens \(9 of its prompt"):
        _engine(MODELS["qwen2"](), 64, 22).generate(REQUESTS, SAMPLING)


@pytest.fixture(params=["qwen2", "gemma2, window longer than any sample"])
def steps(request, monkeypatch):
    """A model, and the shape of what it reads at once, time by time: prompts, or one token of each sample."""
    model, read = MODELS[request.param](), []
    kind = FusedSteps if fuses(model, 23) else ModelSteps
    enter, step = kind.enter, kind.step
    monkeypatch.setattr(kind, "enter", lambda own, p, source: read.append((*p.ids_PL.shape,)) or enter(own, p, source))
    monkeypatch.setattr(kind, "step", lambda own, token, at: read.append((len(token), 1)) or step(own, token, at))
    return model, read


def test_a_prompt_is_read_once_and_a_finished_sample_no_more(steps):
    model, read = steps
    completions = _engine(model).generate(REQUESTS, SAMPLING)
    assert read[0] == (6, 9)  # six prompts, padded to the longest
    # Step t reads the samples that are longer than t tokens, and no others.
    longer = [sum(len(c.ids) > t for c in completions) for t in range(1, SAMPLING.max_new_tokens)]
    assert read[1:] == [(rows, 1) for rows in longer if rows]


def test_waiting_prompts_enter_before_the_batch_is_done(steps):
    model, read = steps
    _engine(model, 9).generate(REQUESTS, SAMPLING)
    assert max(rows for rows, width in read if width == 1) <= 9
    # Behind the first, a prompt alone brings 3 samples: where a step then has more, others were in flight.
    entries = [i for i, (_, width) in enumerate(read) if width > 1]
    assert any(read[i][0] == 1 and read[i + 1] > (3, 1) for i in entries[1:-1])


def test_an_adapter_counts():
    plain = MODELS["qwen2"]()
    before = [c.ids for c in _engine(plain).generate(REQUESTS, SAMPLING)]
    policy = learner(plain, Adapter(rank=2, alpha=4, dropout=0.0)).eval()
    assert [c.ids for c in _engine(policy).generate(REQUESTS, SAMPLING)] == before  # an adapter starts at nothing
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    drawn = _engine(policy, 4).generate(REQUESTS, SAMPLING)
    assert [c.ids for c in drawn] != before
    assert [c.ids for c in drawn] == [_alone(policy, request, SAMPLING)[0] for request in REQUESTS]


def test_a_frozen_head_is_kept_beside_an_adapter_until_it_is_written_to():
    policy = learner(MODELS["qwen2"](), Adapter(rank=2, alpha=4, dropout=0.0)).eval()
    engine = _engine(policy)
    before = engine.generate(REQUESTS, SAMPLING)
    with torch.no_grad():
        policy.get_base_model().lm_head.weight.neg_()
    drawn = [c.ids for c in engine.generate(REQUESTS, SAMPLING)]
    assert drawn != [c.ids for c in before]
    assert drawn == [_alone(policy, request, SAMPLING)[0] for request in REQUESTS]


def _log_probs(model, requests, completions):
    """Of the drawn tokens, from one plain forward each."""
    found = []
    for request, completion in zip(requests, completions, strict=True):
        logits = model(input_ids=torch.tensor([[*request.prompt_ids, *completion.ids]]), use_cache=False).logits[0]
        logp = logits.float().log_softmax(-1)[len(request.prompt_ids) - 1 : -1]
        found += logp.gather(1, torch.tensor(completion.ids).unsqueeze(1)).squeeze(1).tolist()
    return torch.tensor(found)


@pytest.mark.parametrize("sharing", [1, 100])
def test_in_bfloat16_the_sampler_agrees_with_a_plain_forward(sharing, monkeypatch):
    monkeypatch.setattr(engines, "_WORTH_SHARING", sharing)
    # Three significant digits in every layer: log-probs of some nats agree to some hundredths.
    whole = _model(Qwen2ForCausalLM, Qwen2Config)
    half = _model(Qwen2ForCausalLM, Qwen2Config).bfloat16()
    drawing = {
        "autocast": (whole, _engine(whole, 4, precision=lambda: precision(CPU, "bfloat16"))),
        "weights": (half, _engine(half, 4)),
    }
    for name, (model, engine) in drawing.items():
        completions = engine.generate(REQUESTS, SAMPLING)
        with torch.no_grad(), precision(CPU, "bfloat16" if name == "autocast" else "float32"):
            trained = _log_probs(model, REQUESTS, completions)
        sampled = torch.tensor([logp for c in completions for logp in c.logps])
        assert (sampled - trained).abs().mean() < 0.05, name


def test_what_cannot_enter_one_by_one_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        _engine(MODELS["qwen2"]()).generate(REQUESTS, SAMPLING)
        assert not caplog.records
        _engine(MODELS["mistral, window shorter than a sample"]()).generate(REQUESTS, SAMPLING)
    assert "MistralForCausalLM keeps memories that samples cannot enter or leave one by one" in caplog.text


@pytest.mark.parametrize(("rows", "order"), [([0, 1, 2], [0, 1, 2]), ([0, 2, 3], [0, 3, 2]), ([3], [3]), ([], [])])
def test_the_last_rows_fill_the_holes(rows, order):
    assert _compacted(rows) == order


def test_nothing_is_drawn_for_no_request():
    assert _engine(MODELS["qwen2"]()).generate([], SAMPLING) == []
