"""The formulas of where algorithms end, against small numbers and against the gradients of the KL terms."""

import math

import pytest
import torch

from rlpipe.algos.base import KL
from rlpipe.algos.choices import composed
from rlpipe.algos.objective import policy_objective
from rlpipe.algos.rloo import RLOO
from rlpipe.bandit.optimum import (
    best_arm,
    boltzmann,
    expected_advantage,
    ipo_optimum,
    kl_is_idle,
    orpo_optimum,
    resting_point,
    simpo_optimum,
)
from rlpipe.bandit.table import bandit, draw, kl, total_variation
from rlpipe.ops.advantages import group_centred, group_zscore, group_zscore_population
from rlpipe.ops.kl import exact, k1
from rlpipe.ops.rewards import terminal
from rlpipe.types import Totals


def test_boltzmann_tilts_the_reference_by_the_reward_over_its_weight():
    # ref 1/2, 1/2; r = (0.5 ln 3, 0) at weight 0.5: odds 1 * exp(ln 3) = 3 to 1.
    arms = bandit([[0.5 * math.log(3), 0.0]], [[0.5, 0.5]])
    torch.testing.assert_close(boltzmann(arms, 0.5).exp(), torch.tensor([[0.75, 0.25]], dtype=torch.float64))


def test_boltzmann_is_the_maximum_of_reward_minus_kl():
    arms = bandit([[0.0, 0.3, 1.0]], [[0.5, 0.3, 0.2]])

    def objective(policy_PK):
        return (policy_PK.exp() * arms.reward_PK).sum() - 0.4 * kl(policy_PK, arms.ref_PK)

    top = boltzmann(arms, 0.4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        near = (top + 0.1 * torch.randn(top.shape, dtype=top.dtype, generator=generator)).log_softmax(-1)
        assert objective(near) < objective(top)


def test_total_variation_is_half_the_summed_difference():
    # |0.75 - 0.5| + |0.25 - 0.5| = 0.5, half of it 0.25.
    a, b = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    torch.testing.assert_close(total_variation(a, b), torch.tensor(0.25))
    torch.testing.assert_close(total_variation(a, best_arm(bandit([[1.0, 0.0]], [[0.5, 0.5]]))).item(), 0.25)


def _gradient(algo, policy_PK, ref_PK):
    """Of the KL term in the loss alone, every arm weighing its probability: the expectation, not a sample of it."""
    logits = policy_PK.clone().requires_grad_()
    rows = logits.log_softmax(-1).squeeze(0)
    logp_BT, ref_BT = rows.unsqueeze(1), ref_PK.squeeze(0).unsqueeze(1)
    if algo.kl.estimator is exact:
        kl_BT = exact(rows.expand(len(rows), 1, -1), ref_PK.expand(len(rows), 1, -1))
    else:
        kl_BT = algo.kl.estimator(logp_BT, ref_BT)
    zero_BT = torch.zeros_like(ref_BT)
    objective = policy_objective(
        algo, {}, 1.0, logp_BT, kl_BT, zero_BT, logp_BT.detach(), zero_BT, torch.ones_like(ref_BT, dtype=torch.bool),
        policy_PK.exp().view(-1, 1), Totals(len(rows), len(rows)),
    )  # fmt: skip
    return torch.autograd.grad(objective.loss, logits)[0]


def _gradient_of(objective, policy_PK):
    logits = policy_PK.clone().requires_grad_()
    return torch.autograd.grad(objective(logits.log_softmax(-1)), logits)[0]


@pytest.mark.parametrize(
    ("estimator", "whose"),
    [
        ("k1", lambda policy, ref: 0 * kl(policy, ref)),
        ("k2", lambda policy, ref: kl(policy, ref)),
        ("k3", lambda policy, ref: kl(ref, policy)),
        ("exact", lambda policy, ref: kl(policy, ref)),
    ],
)
def test_what_a_kl_estimator_in_the_loss_descends(estimator, whose):
    policy = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    ref = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    algo = composed(RLOO, {"kl_estimator": estimator, "kl_placed": "loss"}, "test")
    expected = _gradient_of(lambda p: whose(p, ref), policy)
    torch.testing.assert_close(_gradient(algo, policy, ref), expected)


def test_an_idle_kl_term_is_none_at_all():
    assert kl_is_idle(KL(k1, placed="loss"))
    assert kl_is_idle(KL(exact, placed="reward"))
    assert not kl_is_idle(KL(k1, placed="reward"))


def test_zscore_in_groups_of_two_is_who_wins():
    # Two siblings with scores a > b: mean (a+b)/2, sample std (a-b)/sqrt 2, so z = +-1/sqrt 2 however far apart.
    # An arm's expectation is P(it meets a worse one) - P(it meets a better one), over sqrt 2.
    score, policy = torch.tensor([[0.0, 1.0, 5.0]]).double(), torch.tensor([[0.5, 0.3, 0.2]]).double().log()
    expected = torch.tensor([[-0.5, 0.5 - 0.2, 0.8]]).double() / math.sqrt(2)
    # The op adds 1e-4 to a spread of 0.7 and more.
    torch.testing.assert_close(expected_advantage("group_zscore", score, policy, 0.0, 2), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("op", [group_zscore, group_zscore_population, group_centred])
def test_expected_advantage_is_the_mean_of_what_the_op_gives(op):
    # 20 000 groups of 4: an advantage of spread 1 has a mean known to 1 / sqrt(8 000) = 0.011 on the rarest arm (0.1 of
    # the draws); sample and population spread differ by sqrt(4 / 3), 15%.
    arms = bandit([[0.0, 0.2, 1.0]], [[0.6, 0.3, 0.1]])
    draws = draw(arms, arms.ref_PK, 20_000, 4, torch.Generator().manual_seed(0))
    mask_BT = torch.ones_like(draws.logp_BT, dtype=torch.bool)
    adv_BT = op(terminal(draws.score_B, mask_BT), torch.zeros_like(draws.logp_BT), draws.group_B, mask_BT).adv_BT
    expected = expected_advantage(op.__name__, arms.reward_PK, arms.ref_PK, 0.0, 4).squeeze(0)
    expected = expected - (arms.ref_PK.exp().squeeze(0) * expected).sum()
    means = torch.stack([adv_BT[draws.arm_B == arm].mean() for arm in range(3)])
    torch.testing.assert_close(means, expected, atol=0.04, rtol=0)


def test_centring_with_oneself_in_the_mean_shrinks_the_reward():
    # In a group of 4 a sample is a quarter of its own mean, so kl_coef in the loss acts as kl_coef 4/3.
    algo = composed(RLOO, {"advantage": "group_centred", "kl_placed": "loss", "kl_estimator": "k2"}, "test")
    arms = bandit([[0.0, 0.3, 1.0]], [[0.5, 0.3, 0.2]])
    torch.testing.assert_close(resting_point(algo, {}, 0.5, arms, 4), boltzmann(arms, 0.5 * 4 / 3), atol=1e-6, rtol=0)


def test_forward_kl_leans_on_the_reference_hyperbolically():
    # pi = ref b / (lambda - r), lambda = b + E[r]: at equal ref, r = (1, 0) and b = 1 that is pi_0 = 1/2 / (1 - 1 + q)
    # with q = pi_0 here: q = (1/2) / (1 + q - 1) = 1 / (2 q), q = sqrt(1/2).
    algo = composed(RLOO, {"kl_placed": "loss", "kl_estimator": "k3"}, "test")
    at = resting_point(algo, {}, 1.0, bandit([[1.0, 0.0]], [[0.5, 0.5]]), 4)
    torch.testing.assert_close(at[0, 0].exp().item(), math.sqrt(0.5))


def test_entropy_bonus_flattens_reference_and_reward_alike():
    # r - b log(pi / ref) - e log pi is level at  pi ~ (ref^b exp r)^(1 / (b + e)).
    algo, arms = RLOO, bandit([[0.0, 0.3, 1.0]], [[0.5, 0.3, 0.2]])
    expected = ((0.5 * arms.ref_PK + arms.reward_PK) / 0.7).log_softmax(-1)
    torch.testing.assert_close(resting_point(algo, {"entropy_coef": 0.2}, 0.5, arms, 4), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("weight", [1.0, 100.0])
def test_hinge_gives_way_by_the_advantage_over_twice_its_weight(weight):
    # k1 in the hinge: arm 1 falls below its reference, where there is no excess, so arm 0 rises until its own pull
    # is the whole difference of rewards: 2 c (u - 0.2) = 1.
    algo = composed(RLOO, {"kl_placed": "hinge", "kl_estimator": "k1"}, "test")
    arms = bandit([[1.0, 0.0]], [[0.3, 0.7]])
    at = resting_point(algo, {"kl_threshold": 0.2}, weight, arms, 4)
    torch.testing.assert_close((at - arms.ref_PK)[0, 0].item(), 0.2 + 1 / (2 * weight), atol=1e-5, rtol=0)


def test_ipo_optimum_by_hand():
    # Two arms, ref 1/2 each, r_0 - r_1 = ln 3: arm 0 beats arm 1 in 3/4 and itself in 1/2 of the cases:
    # p_0 = (0.5 + 0.75) / 2, p_1 = (0.25 + 0.5) / 2, log-odds (p_0 - p_1) / tau = 0.25 / tau.
    arms = bandit([[math.log(3), 0.0]], [[0.5, 0.5]])
    at = ipo_optimum(arms, 0.1)
    torch.testing.assert_close((at[0, 0] - at[0, 1]).item(), 2.5)


def test_simpo_without_margin_is_boltzmann_over_a_uniform_reference():
    arms = bandit([[1.0, 0.0]], [[0.9, 0.1]])
    at = simpo_optimum(arms, 2.0, 0.0)
    torch.testing.assert_close((at[0, 0] - at[0, 1]).item(), 1.0 / 2.0)


def test_orpo_is_imitation_at_weight_0_and_half_the_log_odds_at_a_large_one():
    arms = bandit([[1.0, 0.0]], [[0.9, 0.1]])
    imitation, odds = orpo_optimum(arms, 0.0), orpo_optimum(arms, 1e9)
    torch.testing.assert_close((imitation[0, 0] - imitation[0, 1]).item(), 1.0)
    torch.testing.assert_close((odds[0, 0] - odds[0, 1]).item(), 0.5)
