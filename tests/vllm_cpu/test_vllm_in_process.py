"""The engine on vLLM in this process: seeds, log-probs, ends, new weights."""

from __future__ import annotations

import random

import pytest
import torch
from small_decoders import CLOSE, EOS, REQUESTS, decoder, gap, shaken

from rlpipe.config.schema import Adapter
from rlpipe.errors import ConfigError
from rlpipe.models.learner import learner
from rlpipe.types import Sampling

PLAIN = Sampling(1.0, 16)


def test_a_sample_is_its_streams_own(model, engine_of):
    engine = engine_of(model)
    whole = [completion.ids for completion in engine.generate(REQUESTS, PLAIN)]
    assert [completion.ids for completion in engine.generate(REQUESTS, PLAIN)] == whole
    few = engine.generate(REQUESTS[4:2:-1], PLAIN)  # two of them, in another order
    assert [completion.ids for completion in few] == [whole[4], whole[3]]
    assert len(set(whole)) == len(whole)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_the_trainers_at_the_sampling_temperature(model, engine_of, temperature):
    sampling = Sampling(temperature, 16)
    drawn = engine_of(model, sampling).generate(REQUESTS, sampling)
    assert gap(model, REQUESTS, drawn, temperature) < CLOSE


def test_temperature_0_takes_the_likeliest_and_says_the_models_own_log_prob(model, engine_of):
    greedy = Sampling(0.0, 16)
    engine = engine_of(model, greedy)
    drawn = engine.generate(REQUESTS, greedy)
    assert len({completion.ids for completion in drawn[:6]}) == 1  # the same prompt
    assert gap(model, REQUESTS, drawn) < CLOSE


def test_with_a_cut_log_probs_are_those_of_the_whole_distribution(model, engine_of):
    cut = Sampling(1.0, 16, top_k=2)
    drawn = engine_of(model, cut).generate(REQUESTS, cut)
    assert gap(model, REQUESTS, drawn) < CLOSE
    with torch.no_grad():
        first = model(torch.tensor([REQUESTS[0].prompt_ids])).logits[0, -1].topk(2).indices.tolist()
    assert {completion.ids[0] for completion in drawn[:6]} <= set(first)


def test_an_engine_is_started_for_one_kind_of_log_probs(model, engine_of):
    engine = engine_of(model)
    engine.generate(REQUESTS[:1], PLAIN)
    with pytest.raises(ConfigError, match="needs others"):
        engine.generate(REQUESTS, Sampling(1.0, 16, top_p=0.9))


def test_every_end_token_ends_a_sample_and_is_its_last(model, engine_of):
    ends = EOS | {7, 23, 40}
    drawn = engine_of(model, Sampling(1.0, 64), ends).generate(REQUESTS, Sampling(1.0, 64))
    finished = [completion for completion in drawn if completion.finished]
    assert finished
    for completion in drawn:
        assert not ends & set(completion.ids[:-1])
        assert completion.finished == (completion.ids[-1] in ends)
        assert completion.finished or len(completion.ids) == 64
        assert len(completion.logps) == len(completion.ids)


@pytest.mark.parametrize("tied", [False, True])
def test_new_weights_reach_it_with_a_refresh_and_not_before(engine_of, tied):
    model = decoder(tied=tied)
    engine = engine_of(model)
    engine.generate(REQUESTS, PLAIN)
    for _ in range(2):
        shaken(model)
        assert gap(model, REQUESTS, engine.generate(REQUESTS, PLAIN)) > 0.1
        engine.refresh()
        # The prompt is longer than a cache block: old keys and values would show.
        assert gap(model, REQUESTS, engine.generate(REQUESTS, PLAIN)) < CLOSE


def test_a_new_adapter_reaches_it_with_a_refresh_and_not_before(model, engine_of):
    policy = learner(model, Adapter(rank=4, alpha=8, dropout=0.0))
    engine = engine_of(policy)
    assert gap(policy, REQUESTS, engine.generate(REQUESTS, PLAIN)) < CLOSE
    for _ in range(2):
        shaken(policy)
        assert gap(policy, REQUESTS, engine.generate(REQUESTS, PLAIN)) > 0.1
        engine.refresh()
        assert gap(policy, REQUESTS, engine.generate(REQUESTS, PLAIN)) < CLOSE


def test_the_process_around_it_is_left_as_it_was(model, engine_of, tmp_path):
    threads, torch_state, python_state = torch.get_num_threads(), torch.get_rng_state(), random.getstate()
    engine = engine_of(model)
    engine.generate(REQUESTS, PLAIN)
    engine.refresh()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert not list(tmp_path.iterdir())  # weights on file are gone once they are read


def test_no_requests_no_completions(model, engine_of):
    assert engine_of(model).generate([], PLAIN) == []
