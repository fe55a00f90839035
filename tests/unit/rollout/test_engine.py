"""A sample is a function of the model, its prompt and its stream's address: nothing else in the batch counts."""

import pytest
import torch

from rlpipe.dataio.chat import prompt_ids
from rlpipe.dataio.collate import collate
from rlpipe.models.forward import response_stats
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.types import Request, Sampling

CPU = torch.device("cpu")
SAMPLING = Sampling(temperature=1.0, max_new_tokens=12)


def _engine(model, tokenizer, batch_size=64):
    return TransformersEngine(model, frozenset({tokenizer.eos_token_id}), CPU, batch_size)


def _requests(tokenizer, texts=("1+2", "12+3-4", "7-5")):
    return [
        Request(prompt_ids(tokenizer, text), (17, 3, prompt, sample))
        for prompt, text in enumerate(texts)
        for sample in range(3)
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batching_changes_no_token(tiny, tokenizer, batch_size):
    requests = _requests(tokenizer)
    whole = _engine(tiny, tokenizer).generate(requests, SAMPLING)
    parts = _engine(tiny, tokenizer, batch_size).generate(requests, SAMPLING)
    assert [c.ids for c in parts] == [c.ids for c in whole]


def test_order_of_requests_changes_no_token(tiny, tokenizer):
    requests = _requests(tokenizer)
    forward = _engine(tiny, tokenizer).generate(requests, SAMPLING)
    backward = _engine(tiny, tokenizer).generate(requests[::-1], SAMPLING)
    assert [c.ids for c in backward[::-1]] == [c.ids for c in forward]


def test_siblings_differ_and_the_same_address_repeats(tiny, tokenizer):
    first, second, third = _engine(tiny, tokenizer).generate(_requests(tokenizer, ["1+2"]), SAMPLING)
    again = _engine(tiny, tokenizer).generate(_requests(tokenizer, ["1+2"]), SAMPLING)[0]
    assert len({first.ids, second.ids, third.ids}) == 3
    assert again == first


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_samplers_log_probs_are_the_trainers(tiny, tokenizer, temperature):
    requests = _requests(tokenizer)
    completions = _engine(tiny, tokenizer).generate(requests, Sampling(temperature, 12))
    batch = collate([(r.prompt_ids, c.ids) for r, c in zip(requests, completions, strict=True)], tokenizer.pad_token_id)
    trained = response_stats(tiny, batch, temperature=temperature).logp_BT
    for row, completion in enumerate(completions):
        torch.testing.assert_close(trained[row, : len(completion.ids)], torch.tensor(completion.logps))


def test_a_completion_ends_with_its_end_token_or_is_unfinished(tiny, tokenizer):
    with torch.no_grad():
        tiny.get_input_embeddings().weight[tokenizer.eos_token_id] *= 20  # tied head: ends become likely
    completions = _engine(tiny, tokenizer).generate(_requests(tokenizer), SAMPLING)
    assert any(c.finished for c in completions)
    for completion in completions:
        assert completion.finished == (completion.ids[-1] == tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in completion.ids[:-1]
        assert len(completion.ids) == len(completion.logps) <= 12
