"""Losses on pairs against their formulas, their gradients, and what each reports."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from rlpipe.ops.needs import needs_of
from rlpipe.ops.preference import (
    bradley_terry,
    dpo,
    dpo_reference_free,
    ipo,
    ipo_per_token,
    kto,
    orpo,
    simpo,
)
from rlpipe.types import PairLogps
from tests.unit.ops.inputs import pairs, sigmoid

# Sums of log-probs of a chosen response of 4 tokens and a rejected one of 5.
CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF, LENGTHS, Z = -3.0, -4.5, -3.4, -4.2, (4.0, 5.0), 0.25
GAIN_C, GAIN_R = CHOSEN - CHOSEN_REF, REJECTED - REJECTED_REF  # 0.4 and -0.3
MEAN_C, MEAN_R = CHOSEN / 4, REJECTED / 5  # -0.75 and -0.9
NUMBERS = {
    dpo: {"beta": 0.5, "label_smoothing": 0.1},
    dpo_reference_free: {"beta": 0.5, "label_smoothing": 0.1},
    ipo: {"tau": 0.8},
    ipo_per_token: {"tau": 0.8},
    simpo: {"beta": 2.0, "target_margin": 0.5},
    orpo: {"odds_weight": 0.3},
    kto: {"beta": 0.5, "desirable_weight": 1.5, "undesirable_weight": 0.7},
}
_named = pytest.mark.parametrize("op", NUMBERS, ids=lambda op: op.__name__)


def _logistic(h, smoothing=0.1):
    return -(1 - smoothing) * math.log(sigmoid(h)) - smoothing * math.log(sigmoid(-h))


def _odds(mean_logp):
    return math.exp(mean_logp) / (1 - math.exp(mean_logp))


LOSSES = {
    dpo: _logistic(0.5 * (GAIN_C - GAIN_R)),
    dpo_reference_free: _logistic(0.5 * (CHOSEN - REJECTED)),
    ipo: (GAIN_C - GAIN_R - 1 / 1.6) ** 2,
    ipo_per_token: (GAIN_C / 4 - GAIN_R / 5 - 1 / 1.6) ** 2,
    simpo: -math.log(sigmoid(2.0 * (MEAN_C - MEAN_R) - 0.5)),
    orpo: -MEAN_C - 0.3 * math.log(sigmoid(math.log(_odds(MEAN_C) / _odds(MEAN_R)))),
    kto: (1.5 * (1 - sigmoid(0.5 * (GAIN_C - Z))) + 0.7 * (1 - sigmoid(0.5 * (Z - GAIN_R)))) / 2,
}
REWARDS = {
    dpo: (0.5 * GAIN_C, 0.5 * GAIN_R),
    dpo_reference_free: (0.5 * CHOSEN, 0.5 * REJECTED),
    ipo: (0.8 * GAIN_C, 0.8 * GAIN_R),
    ipo_per_token: (0.8 * GAIN_C / 4, 0.8 * GAIN_R / 5),
    simpo: (2.0 * MEAN_C, 2.0 * MEAN_R),
    orpo: (0.3 * MEAN_C, 0.3 * MEAN_R),
    kto: (0.5 * GAIN_C, 0.5 * GAIN_R),
}


def _pairs():
    return pairs(CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF, LENGTHS, Z)


@_named
def test_formula(op):
    assert op(_pairs(), **NUMBERS[op]).loss_B.item() == pytest.approx(LOSSES[op])


@_named
def test_gradients(op):
    made = _pairs()
    fixed = (made.chosen_ref_B, made.rejected_ref_B, made.chosen_length_B, made.rejected_length_B, made.kl_baseline)
    assert gradcheck(lambda c, r: op(PairLogps(c, r, *fixed), **NUMBERS[op]).loss_B, (made.chosen_B, made.rejected_B))


@_named
def test_implicit_rewards_margin_and_accuracy(op):
    metrics = op(_pairs(), **NUMBERS[op]).metrics_B
    chosen, rejected = REWARDS[op]
    assert metrics["preference/chosen_reward"].item() == pytest.approx(chosen)
    assert metrics["preference/rejected_reward"].item() == pytest.approx(rejected)
    assert metrics["preference/margin"].item() == pytest.approx(chosen - rejected)
    assert metrics["preference/accuracy"].item() == 1.0
    assert not any(value.requires_grad for value in metrics.values())


@_named
def test_a_tie_is_not_counted_as_right(op):
    tie = pairs(-3.0, -3.0, -3.0, -3.0, (4.0, 4.0), Z)
    assert op(tie, **NUMBERS[op]).metrics_B["preference/accuracy"].item() == 0.0


@_named
def test_what_each_needs(op):
    assert needs_of(op).reference == (op in (dpo, ipo, ipo_per_token, kto))
    assert needs_of(op).kl_baseline == (op is kto)


# ---- worked examples and limits -----------------------------------------------------------------------


def test_at_the_start_dpo_is_log_2_and_pulls_with_half_of_beta():
    # Policy = reference: h = 0, l = log 2; dl/dchosen = -beta (1 - sigmoid(0)) = -beta / 2.
    start = pairs(-3.0, -4.0, -3.0, -4.0)
    loss = dpo(start, beta=0.1, label_smoothing=0.0).loss_B
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert (start.chosen_B.grad.item(), start.rejected_B.grad.item()) == pytest.approx((-0.05, 0.05))


def test_label_smoothing_stops_the_push_at_its_log_odds():
    # dl/dh = -(1 - s) sigmoid(-h) + s sigmoid(h) = 0 at h = log((1 - s) / s); with s = 0.2, h = log 4.
    settled = pairs(math.log(4.0), 0.0, 0.0, 0.0)
    dpo(settled, beta=1.0, label_smoothing=0.2).loss_B.backward()
    assert settled.chosen_B.grad.item() == pytest.approx(0.0)


def test_ipo_is_at_rest_when_the_gap_is_half_of_one_over_tau():
    # 1 / (2 * 0.1) = 5 nats.
    settled = pairs(5.0, 0.0, 0.0, 0.0)
    ipo(settled, tau=0.1).loss_B.backward()
    assert settled.chosen_B.grad.item() == pytest.approx(0.0)


def test_the_halves_of_kto_do_not_see_each_other():
    one, other = _pairs(), pairs(CHOSEN, -40.0, CHOSEN_REF, -1.0, LENGTHS, Z)
    for made in (one, other):
        kto(made, **NUMBERS[kto]).loss_B.backward()
    assert one.chosen_B.grad.item() == other.chosen_B.grad.item()


def test_certain_and_hopeless_pairs_overflow_nowhere():
    for gap in (1e4, -1e4):
        made = pairs(gap, 0.0, 0.0, 0.0)
        loss = dpo(made, beta=1.0, label_smoothing=0.0).loss_B
        loss.backward()
        assert loss.item() == (0.0 if gap > 0 else 1e4)
        assert made.chosen_B.grad.isfinite()


# ---- Bradley-Terry ------------------------------------------------------------------------------------


def _scores(chosen, rejected, margin):
    made = [torch.tensor([x], dtype=torch.float64) for x in (chosen, rejected, margin)]
    return made[0].requires_grad_(), made[1].requires_grad_(), made[2]


def test_bradley_terry():
    loss = bradley_terry(*_scores(1.2, 0.4, 3.0), temperature=2.0, margin_coef=0.1, centring_coef=0.01)
    # (1.2 - 0.4) / 2 - 0.1 * 3 = 0.1, and 0.01 * 1.6^2 = 0.0256
    assert loss.loss_B.item() == pytest.approx(-math.log(sigmoid(0.1)) + 0.0256)
    assert {name: value.item() for name, value in loss.metrics_B.items()} == pytest.approx(
        {
            "reward_model/margin": 0.8,
            "reward_model/accuracy": 1.0,
            "reward_model/chosen_score": 1.2,
            "reward_model/rejected_score": 0.4,
        }
    )
    assert not any(value.requires_grad for value in loss.metrics_B.values())


def test_bradley_terrys_gradient():
    chosen, rejected, margin = _scores(1.2, 0.4, 3.0)
    numbers = {"temperature": 2.0, "margin_coef": 0.1, "centring_coef": 0.01}
    assert gradcheck(lambda c, r: bradley_terry(c, r, margin, **numbers).loss_B, (chosen, rejected))


def test_bradley_terry_counts_a_tie_as_wrong():
    loss = bradley_terry(*_scores(0.4, 0.4, 0.0), temperature=1.0, margin_coef=0.0, centring_coef=0.0)
    assert loss.metrics_B["reward_model/accuracy"].item() == 0.0
