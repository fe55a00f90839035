"""Every advantage against its formula, written over lists of the real tokens."""

import math

import pytest
import torch
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.advantages import (
    batch_centred,
    batch_zscore,
    gae,
    gae_whitened,
    group_centred,
    group_centred_batch_zscore,
    group_zscore,
    group_zscore_population,
    leave_one_out,
    monte_carlo,
    n_step_td,
    td,
)
from rlpipe.ops.needs import needs_of
from tests.unit.ops.inputs import GROUPS, MASK, draw, padded, rows

REWARD, VALUE = draw(0, -1, 2), draw(1, -1, 1)
R, V = rows(REWARD), rows(VALUE)
GAMMA, LAM = 0.9, 0.8
SIBLINGS = [(0, 2, 4), (1, 3, 5)]


def _check(advantage, adv, returns):
    assert_close(advantage.adv_BT, padded(adv))
    assert_close(advantage.return_BT, padded(returns))


def _spread(per_row):
    """One number a row, at each of its real tokens."""
    return [[x] * len(row) for x, row in zip(per_row, R, strict=True)]


def _mean(xs):
    return sum(xs) / len(xs)


def _std(xs, less=0):
    return math.sqrt(sum((x - _mean(xs)) ** 2 for x in xs) / (len(xs) - less))


def _white(lists):
    flat = [x for row in lists for x in row]
    return [[(x - _mean(flat)) / _std(flat) for x in row] for row in lists]


def _discounted(rewards):
    return [sum(GAMMA ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]


def _delta(r, v, t):
    return r[t] + GAMMA * (v[t + 1] if t + 1 < len(v) else 0.0) - v[t]


def _gae(r, v, lam):
    return [sum((GAMMA * lam) ** (k - t) * _delta(r, v, k) for k in range(t, len(r))) for t in range(len(r))]


# ---- one number a response ----------------------------------------------------------------------------


def _by_group(formula):
    """`formula(i, scores of the group)` for each row, in the rows' order."""
    scores = [sum(row) for row in R]
    found = {i: formula(scores[i], [scores[j] for j in group]) for group in SIBLINGS for i in group}
    return [found[i] for i in range(len(R))]


@pytest.mark.parametrize(
    ("op", "formula"),
    [
        (group_zscore, lambda s, group: (s - _mean(group)) / (_std(group, less=1) + 1e-4)),
        (group_zscore_population, lambda s, group: (s - _mean(group)) / (_std(group) + 1e-4)),
        (group_centred, lambda s, group: s - _mean(group)),
        (leave_one_out, lambda s, group: s - (sum(group) - s) / 2),
    ],
)
def test_compared_with_siblings(op, formula):
    # Values play no part here, but must still have the right shape.
    _check(op(REWARD, VALUE, GROUPS, MASK), _spread(_by_group(formula)), _spread([sum(row) for row in R]))


def test_group_centred_then_whitened_over_all_tokens():
    centred = _spread(_by_group(lambda s, group: s - _mean(group)))
    _check(group_centred_batch_zscore(REWARD, VALUE, GROUPS, MASK), _white(centred), _spread([sum(row) for row in R]))


@pytest.mark.parametrize("op", [group_zscore, group_zscore_population, group_centred, leave_one_out])
def test_siblings_that_score_alike_teach_nothing(op):
    reward, mask = torch.full((3, 2), 0.7, dtype=torch.float64), torch.ones(3, 2).bool()
    assert_close(op(reward, reward, torch.zeros(3).long(), mask).adv_BT, torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("op", [group_zscore, group_zscore_population, group_centred, leave_one_out])
def test_a_sample_left_without_siblings_teaches_nothing(op):
    # Its siblings had no score: whatever it scored itself, there is nothing to compare it with.
    reward, mask = torch.tensor([[0.7], [1.0], [3.0]], dtype=torch.float64), torch.ones(3, 1).bool()
    advantage = op(reward, reward, torch.tensor([0, 1, 1]), mask)
    assert advantage.adv_BT[0].item() == 0
    assert advantage.adv_BT[2].item() > 0


def test_of_two_each_is_the_others_baseline():
    reward, mask = torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.ones(2, 1).bool()
    assert leave_one_out(reward, reward, torch.tensor([1, 1]), mask).adv_BT.flatten().tolist() == [-2.0, 2.0]


def test_a_spread_below_epsilon_is_not_blown_up():
    # Scores 0 and 1e-4: the sample std is 1e-4 / sqrt(2); the advantage 0.5e-4 / (0.7071e-4 + 1e-4) = 0.2929.
    reward, mask = torch.tensor([[0.0], [1e-4]], dtype=torch.float64), torch.ones(2, 1).bool()
    advantage = group_zscore(reward, reward, torch.zeros(2).long(), mask).adv_BT
    assert_close(advantage[1].item(), 0.5 / (math.sqrt(0.5) + 1))


# ---- discounted returns -------------------------------------------------------------------------------


def test_monte_carlo_is_the_discounted_return_minus_the_value():
    returns = [_discounted(r) for r in R]
    adv = [[g - x for g, x in zip(row, v, strict=True)] for row, v in zip(returns, V, strict=True)]
    _check(monte_carlo(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA), adv, returns)


def test_batch_centred_subtracts_the_mean_return_of_all_tokens():
    returns = [_discounted(r) for r in R]
    mean = _mean([x for row in returns for x in row])
    _check(
        batch_centred(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA), [[x - mean for x in row] for row in returns], returns
    )


def test_batch_zscore_whitens_the_returns_whatever_the_values():
    returns = [_discounted(r) for r in R]
    _check(batch_zscore(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA), _white(returns), returns)


def test_whitening_does_not_blow_up_a_spread_near_0():
    # Rewards 0 and 2e-8 in one-token rows: mean 1e-8, std 1e-8, so (+-1e-8) / (1e-8 + 1e-8) = +-1/2.
    reward, mask = torch.tensor([[0.0], [2e-8]], dtype=torch.float64), torch.ones(2, 1).bool()
    advantage = batch_zscore(reward, reward, torch.zeros(2).long(), mask, gamma=1.0).adv_BT
    assert advantage.flatten().tolist() == pytest.approx([-0.5, 0.5])


# ---- bootstrapped from values -------------------------------------------------------------------------


def test_one_step_td():
    adv = [[_delta(r, v, t) for t in range(len(r))] for r, v in zip(R, V, strict=True)]
    returns = [[a + x for a, x in zip(row, v, strict=True)] for row, v in zip(adv, V, strict=True)]
    _check(td(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA), adv, returns)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_n_step_td(n):
    def target(r, v, t):
        seen = sum(GAMMA**k * r[t + k] for k in range(n) if t + k < len(r))
        return seen + (GAMMA**n * v[t + n] if t + n < len(v) else 0.0)

    returns = [[target(r, v, t) for t in range(len(r))] for r, v in zip(R, V, strict=True)]
    adv = [[g - x for g, x in zip(row, v, strict=True)] for row, v in zip(returns, V, strict=True)]
    _check(n_step_td(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA, td_steps=n), adv, returns)


def test_two_step_td_of_one_response():
    # gamma 0.5, r = 1 2 4, V = 8 16 32:
    #   1 + 0.5*2 + 0.25*32 - 8 = 2;   2 + 0.5*4 + 0 - 16 = -12;   4 - 32 = -28, the episode being over.
    reward, value = torch.tensor([[[1.0, 2.0, 4.0]], [[8.0, 16.0, 32.0]]], dtype=torch.float64)
    advantage = n_step_td(reward, value, torch.tensor([0]), torch.ones(1, 3).bool(), gamma=0.5, td_steps=2)
    assert advantage.adv_BT.tolist() == [[2.0, -12.0, -28.0]]
    assert advantage.return_BT.tolist() == [[10.0, 4.0, 4.0]]


@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_gae_is_the_discounted_sum_of_errors(lam):
    adv = [_gae(r, v, lam) for r, v in zip(R, V, strict=True)]
    returns = [[a + x for a, x in zip(row, v, strict=True)] for row, v in zip(adv, V, strict=True)]
    _check(gae(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA, lam=lam), adv, returns)


def test_gae_whitened_keeps_the_raw_returns():
    adv = [_gae(r, v, LAM) for r, v in zip(R, V, strict=True)]
    returns = [[a + x for a, x in zip(row, v, strict=True)] for row, v in zip(adv, V, strict=True)]
    _check(gae_whitened(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA, lam=LAM), _white(adv), returns)


def test_gae_is_one_step_td_at_lambda_0_and_monte_carlo_at_lambda_1():
    one_step = td(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA)
    whole = monte_carlo(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA)
    assert_close(gae(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA, lam=0.0).adv_BT, one_step.adv_BT)
    assert_close(gae(REWARD, VALUE, GROUPS, MASK, gamma=GAMMA, lam=1.0).adv_BT, whole.adv_BT)


# ---- shapes and needs ---------------------------------------------------------------------------------

NUMBERS = {
    group_zscore: {}, group_zscore_population: {}, group_centred: {}, leave_one_out: {},
    group_centred_batch_zscore: {}, monte_carlo: {"gamma": 1.0}, batch_centred: {"gamma": 1.0},
    batch_zscore: {"gamma": 1.0}, td: {"gamma": 1.0}, n_step_td: {"gamma": 1.0, "td_steps": 2},
    gae: {"gamma": 1.0, "lam": 1.0}, gae_whitened: {"gamma": 1.0, "lam": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("op", NUMBERS, ids=lambda op: op.__name__)
def test_shapes_must_agree(op):
    for reward, value in ((REWARD[:, 1:], VALUE), (REWARD, VALUE[:, 1:])):
        with pytest.raises(ShapeError, match="has shape"):
            op(reward, value, GROUPS, MASK, **NUMBERS[op])


@pytest.mark.parametrize("op", NUMBERS, ids=lambda op: op.__name__)
def test_what_each_needs(op):
    group, values = 1, "unread"
    if op in (group_zscore, group_zscore_population, group_centred, leave_one_out, group_centred_batch_zscore):
        group = 2
    if op in (td, n_step_td, gae, gae_whitened):
        values = "needed"
    if op is monte_carlo:
        values = "welcome"
    assert (needs_of(op).group, needs_of(op).values) == (group, values)
    assert (needs_of(op).because != "") == (group > 1)


@pytest.mark.parametrize("op", [op for op in NUMBERS if needs_of(op).values != "unread"], ids=lambda op: op.__name__)
def test_returns_by_values_are_each_rows_own(op):
    whole = op(REWARD, VALUE, GROUPS, MASK, **NUMBERS[op]).return_BT
    some = torch.tensor([4, 1])
    of_some = op(REWARD[some], VALUE[some], GROUPS[some], MASK[some], **NUMBERS[op]).return_BT
    assert torch.equal(of_some, whole[some])
