"""Drawing inverts the cumulative distribution; limits cut the draw and leave the log-prob whole."""

import pytest
import torch

from rlpipe.rollout.draw import _kept, draw
from rlpipe.rollout.streams import keys, uniforms
from rlpipe.types import Sampling

CPU = torch.device("cpu")
PLAIN = Sampling(temperature=1.0, max_new_tokens=1)
ALMOST_ONE = 1 - 2.0**-53  # the largest uniform


def test_drawing_follows_the_distribution():
    # 200,000 uniforms against p = 0.1 0.2 0.3 0.4: each share within 4 standard errors.
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    uniform = uniforms(keys([(0, 0, 0, i) for i in range(200_000)], CPU), 5)
    token, logp = draw(p.log().expand(200_000, 4), uniform, PLAIN)
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
        ({"min_p": 0.6}, {2, 3}),  # 0.6 of the peak's 0.4 is 0.24
        ({"min_p": 0.4, "top_k": 2}, {2, 3}),
    ],
)
def test_limits_cut_the_draw_and_leave_the_log_prob_whole(cut, kept):
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    uniform = torch.linspace(0, 0.9999, 1000, dtype=torch.float64)
    token, logp = draw(p.log().expand(1000, 4), uniform, Sampling(1.0, 1, **cut))
    assert set(token.tolist()) == kept
    torch.testing.assert_close(logp, p.log()[token])


@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])  # from a flat distribution, of which much must be looked at
@pytest.mark.parametrize("rounding", [1.0, 1e-6])  # with many equally likely tokens, and hardly any
@pytest.mark.parametrize(
    "cut", [{"top_p": 0.9}, {"top_k": 40}, {"top_k": 40, "top_p": 0.5}, {"top_k": 5000, "top_p": 0.99}]
)
def test_what_limits_leave_is_found_as_by_sorting(cut, rounding, scale):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(6, 8192, generator=generator) * scale / rounding).round() * rounding
    weight = (logits - logits.amax(-1, keepdim=True)).exp()
    total = weight.sum(-1, keepdim=True, dtype=torch.float64)
    ordered, order = weight.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1, dtype=torch.float64) - ordered
    keep = (torch.arange(8192) < cut.get("top_k", 8192)) & (before < cut.get("top_p", 1.0) * total)
    expected = torch.where(torch.zeros_like(keep).scatter(-1, order, keep), weight, 0.0)
    assert torch.equal(_kept(weight, total, Sampling(1.0, 1, **cut)), expected)


@pytest.mark.parametrize("vocabulary", [2, 64, 128, 129, 1000, 4096])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_token_is_where_the_cumulative_probability_passes_the_uniform(vocabulary, temperature):
    logits = torch.randn(200, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    uniform = uniforms(keys([(0, 0, 0, i) for i in range(200)], CPU), 0)
    token, logp = draw(logits, uniform, Sampling(temperature, 1))
    cumulative = (logits / temperature).double().softmax(-1).cumsum(-1)
    for row in range(200):
        plain = int((cumulative[row] > uniform[row]).nonzero()[0])
        assert token[row] == plain
        assert logp[row] == pytest.approx((logits[row] / temperature).double().log_softmax(-1)[plain].item(), abs=1e-6)


@pytest.mark.parametrize("uniform", [0.0, ALMOST_ONE])
@pytest.mark.parametrize("vocabulary", [100, 1000])
def test_an_impossible_token_is_never_drawn(uniform, vocabulary):
    # Only one token of some hundreds is possible; the rest weigh nothing, before it and behind it.
    for possible in (0, 99, vocabulary - 1):
        logits = torch.full((1, vocabulary), -torch.inf)
        logits[0, possible] = 7.0
        token, logp = draw(logits, torch.tensor([uniform], dtype=torch.float64), PLAIN)
        assert (token.item(), logp.item()) == (possible, 0.0)


def test_the_largest_uniform_takes_the_last_possible_token_of_many():
    # Sums of 1000 float32 numbers round; the last token with a weight must be drawn, not one of those behind it.
    for seed in range(50):
        logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(seed))
        logits[0, 900:] = -torch.inf
        token, _ = draw(logits, torch.tensor([ALMOST_ONE], dtype=torch.float64), PLAIN)
        assert token.item() == 899


def test_bfloat16_logits_are_drawn_from_in_float32():
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(1)).bfloat16()
    uniform = torch.linspace(0, 0.99, 8, dtype=torch.float64)
    half, whole = draw(logits, uniform, PLAIN), draw(logits.float(), uniform, PLAIN)
    assert half[0].tolist() == whole[0].tolist()
    assert half[1].dtype == torch.float32
    torch.testing.assert_close(half[1], whole[1], rtol=0, atol=0)
