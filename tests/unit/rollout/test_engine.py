"""A sample is a function of the model, its prompt and its stream's address: nothing else in the batch counts."""

import pytest
import torch

from rlpipe.dataio.chat import prompt_ids
from rlpipe.dataio.collate import collate
from rlpipe.models.forward import response_logits
from rlpipe.rollout.engine import TransformersEngine, draw
from rlpipe.rollout.streams import keys, uniforms
from rlpipe.types import Request, Sampling

CPU = torch.device("cpu")
SAMPLING = Sampling(temperature=1.0, max_new_tokens=12)


def _engine(model, tokenizer, batch_size=64):
    return TransformersEngine(model, frozenset({tokenizer.eos_token_id}), tokenizer.pad_token_id, CPU, batch_size)


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
    trained = response_logits(tiny, batch).logp(temperature)
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


def test_drawing_follows_the_distribution():
    # 200,000 uniforms against p = 0.1 0.2 0.3 0.4: each share within 4 standard errors.
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    uniform = uniforms(keys([(0, 0, 0, i) for i in range(200_000)], CPU), 5)
    token, logp = draw(p.log().expand(200_000, 4), uniform, SAMPLING)
    shares = torch.bincount(token, minlength=4) / 200_000
    assert ((shares - p).abs() < 4 * (p * (1 - p) / 200_000).sqrt()).all()
    torch.testing.assert_close(logp, p.log()[token])


def test_greedy_takes_the_most_likely_token():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert draw(logits, torch.tensor([0.99]), Sampling(0.0, 1))[0].tolist() == [1]


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({"top_k": 2}, {2, 3}),
        ({"top_p": 0.65}, {2, 3}),  # 0.4 is not enough, 0.4 + 0.3 is
        ({"top_p": 0.75}, {1, 2, 3}),  # the token that crosses the border stays
        ({"top_k": 3, "top_p": 0.65}, {2, 3}),
        ({"top_k": 1}, {3}),
    ],
)
def test_top_k_and_top_p_cut_the_draw_and_leave_the_log_prob_whole(cut, kept):
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    uniform = torch.linspace(0, 0.9999, 1000, dtype=torch.float64)
    token, logp = draw(p.log().expand(1000, 4), uniform, Sampling(1.0, 1, **cut))
    assert set(token.tolist()) == kept
    torch.testing.assert_close(logp, p.log()[token])


def test_uniforms_differ_in_every_part_of_the_address():
    base = (1, 2, 3, 4)
    addresses = [base, (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5), (2, 1, 3, 4)]
    drawn = [uniforms(keys([address], CPU), position).item() for address in addresses for position in (0, 1)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= u < 1 for u in drawn)


def test_neighbouring_streams_are_not_correlated():
    # Correlation of 10,000 neighbours has standard error 0.01; 4 of them as the limit.
    u = uniforms(keys([(17, 0, i, 0) for i in range(10_001)], CPU), 0)
    assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1].item()) < 0.04
