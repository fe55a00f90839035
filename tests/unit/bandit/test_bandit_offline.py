"""Preference and distillation algorithms end where the formulas say, as near as their samples allow."""

import math

import pytest
import torch

from rlpipe.algos import ALGOS
from rlpipe.bandit.demo import FOUR_ARMS, TWO_ARMS, pair_target, planned, trained
from rlpipe.bandit.offline import learn_pairs, pair_probabilities, sampled_pairs, wins
from rlpipe.bandit.table import bandit, total_variation


def test_pairs_are_drawn_from_the_reference_and_judged_by_the_reward():
    # Prompt 0 of three, arms 0 and 1 with ref 0.4 and 0.3: 2 * 0.4 * 0.3 / (1 - 0.16 - 0.09 - 0.04 - 0.01) of its
    # pairs; arm 1 wins with sigmoid(0.2 - 0.0).
    share = pair_probabilities(FOUR_ARMS)
    expected = 2 * 0.4 * 0.3 / 0.7 / (1 + math.exp(-0.2)) / 3
    torch.testing.assert_close(share[0, 1, 0].item(), expected)
    torch.testing.assert_close(share.sum().item(), 1.0)


@pytest.mark.parametrize(
    ("name", "arms"), [("dpo", FOUR_ARMS), ("ipo", FOUR_ARMS), ("simpo", TWO_ARMS), ("orpo", TWO_ARMS)]
)
def test_on_endless_pairs_the_minimum_is_the_formula(name, arms):
    plan = planned(ALGOS[name], {})
    target, _ = pair_target(plan, arms)
    learned = learn_pairs(plan, arms, pair_probabilities(arms))[-1]
    assert total_variation(learned, target) <= 1e-3


def _expected_distance(target_PK, slope_PKK, curvature_PKK, share_PKK, pairs):
    """Total variation to be expected from sampling alone: an M-estimator's covariance  H^-1 S H^-1 / n  of the
    log-ratios (P. Huber 1967), through the softmax, and E|x| = sqrt(2 / pi) sd of a normal x.

    slope, curvature: [P, K, K] the first two derivatives of the loss of (prompt, chosen, rejected) in the gap.
    """
    distances = []
    for pi, s, c, q in zip(target_PK.exp(), slope_PKK, curvature_PKK, share_PKK, strict=True):

        def laplacian(weights):
            return torch.diag(weights.sum(0) + weights.sum(1)) - weights - weights.T

        inverse = torch.linalg.pinv(laplacian(q * c))
        covariance = inverse @ laplacian(q * s.square()) @ inverse / pairs
        jacobian = torch.diag(pi) - torch.outer(pi, pi)
        sd = (jacobian @ covariance @ jacobian).diagonal().sqrt()
        distances.append(sd.sum().item() * math.sqrt(2 / math.pi) / 2)
    return sum(distances) / len(distances)


def test_dpo_reaches_the_optimum_from_sampled_preferences():
    # l(h) = -log sigmoid(beta h): l' = -beta sigmoid(-beta h), l'' = beta^2 p (1 - p), where beta h = r_c - r_r and
    # p = sigmoid(beta h) at the optimum.
    share, win = pair_probabilities(FOUR_ARMS), wins(FOUR_ARMS)
    plan = planned(ALGOS["dpo"], {})
    target, _ = pair_target(plan, FOUR_ARMS)
    expected = _expected_distance(target, -0.5 * (1 - win), 0.25 * win * (1 - win), share, 400_000)
    distance = total_variation(trained(plan, seed=0).policy_SPK[-1], target).item()
    assert 0.003 < expected < 0.01
    assert distance <= 2 * expected
    assert distance <= 0.02


def test_ipo_reaches_its_optimum_from_sampled_preferences():
    # l(h) = (h - 1 / (2 tau))^2 with 1 / (2 tau) = 1: l' = 2 (h - 1), l'' = 2, h the optimum's gap.
    plan = planned(ALGOS["ipo"], {})
    target, _ = pair_target(plan, FOUR_ARMS)
    gain = target - FOUR_ARMS.ref_PK
    slope = 2 * (gain.unsqueeze(2) - gain.unsqueeze(1) - 1)
    share = pair_probabilities(FOUR_ARMS)
    expected = _expected_distance(target, slope, torch.full_like(slope, 2.0), share, 400_000)
    distance = total_variation(trained(plan, seed=0).policy_SPK[-1], target).item()
    assert distance <= 2 * expected
    assert distance <= 0.02


def test_a_hundredth_of_the_pairs_gives_ten_times_the_error():
    plan = planned(ALGOS["ipo"], {})
    target, _ = pair_target(plan, FOUR_ARMS)

    def distance(pairs):
        runs = [learn_pairs(plan, FOUR_ARMS, sampled_pairs(FOUR_ARMS, pairs, seed))[-1] for seed in range(4)]
        return sum(total_variation(learned, target).item() for learned in runs) / len(runs)

    # Four runs each: a mean of 36 absolute errors scatters by about a third.
    assert 5 < distance(4_000) / distance(400_000) < 20


def test_ipo_stops_where_certain_preferences_make_dpo_run_away():
    # Rewards 40 apart: the better arm always wins. IPO's gap in log-odds is bounded by 1 / (2 tau) = 1; DPO's is not.
    certain = planned(ALGOS["dpo"], {}), planned(ALGOS["ipo"], {})
    arms = bandit([[40.0, 0.0]], [[0.5, 0.5]])
    dpo, ipo = (learn_pairs(plan, arms, pair_probabilities(arms))[-1] for plan in certain)
    torch.testing.assert_close((ipo[0, 0] - ipo[0, 1]).item(), 1.0, atol=1e-3, rtol=0)
    assert dpo[0, 0] - dpo[0, 1] > 5


def test_kto_raises_what_wins_more_often_than_it_loses_and_starves_the_rest():
    share = pair_probabilities(FOUR_ARMS)
    wins_more = share.sum(2) > share.sum(1)
    outcome = trained(planned(ALGOS["kto"], {}), seed=0)
    learned, reference = outcome.policy_SPK[-1].exp(), FOUR_ARMS.ref_PK.exp()
    assert (learned[~wins_more] < 0.05).all()
    assert (learned[wins_more & (reference < 0.5)] > 1e-2).all()
    assert (learned * FOUR_ARMS.reward_PK).sum() > (reference * FOUR_ARMS.reward_PK).sum()


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("on_policy_distillation", {}),
        ("on_policy_distillation", {"divergence": "forward_kl"}),
        ("on_policy_distillation", {"divergence": "generalized_jsd", "jsd_beta": 0.5}),
        ("distillation", {}),
    ],
)
def test_distillation_reaches_the_teacher(name, chosen):
    outcome = trained(planned(ALGOS[name], chosen), seed=0)
    assert total_variation(outcome.policy_SPK[-1], outcome.target_PK) <= 0.02
