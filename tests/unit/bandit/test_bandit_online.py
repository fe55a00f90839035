"""Every policy-gradient algorithm, sampling, comes to rest where the formulas say."""

import pytest

from rlpipe.algos import ALGOS
from rlpipe.algos.base import PolicyAlgo
from rlpipe.bandit.demo import FOUR_ARMS, planned, trained
from rlpipe.bandit.optimum import best_arm, boltzmann
from rlpipe.bandit.table import total_variation

ONLINE = [name for name, algo in ALGOS.items() if isinstance(algo, PolicyAlgo)]
K1_IN_REWARD = {"kl_placed": "reward", "kl_estimator": "k1", "kl_control": "fixed", "kl_coef": 0.5}
# Found by sampling, with a learning rate that ends at 0.
CLOSE = 0.02


def _distance(outcome, target_PK):
    return total_variation(outcome.policy_SPK[-1], target_PK).item()


@pytest.mark.parametrize("name", ONLINE)
def test_with_k1_in_the_reward_every_algorithm_finds_the_optimum(name):
    bonus = {"entropy_coef": 0.0} if name == "a2c" else {}
    outcome = trained(planned(ALGOS[name], {**K1_IN_REWARD, **bonus, "steps": 150}), seed=0)
    assert _distance(outcome, boltzmann(FOUR_ARMS, 0.5)) <= CLOSE


@pytest.mark.parametrize("name", ["ppo", "gspo", "cispo", "importance_sampling"])
def test_learning_twice_from_each_draw_ends_at_the_same_optimum(name):
    # Ratios, clips and weights are at work between the four updates of a step; at the optimum every ratio is 1.
    twice = {"epochs": 2, "minibatches": 2, "steps": 80, "lr": 1.5}
    outcome = trained(planned(ALGOS[name], {**K1_IN_REWARD, **twice}), seed=0)
    assert _distance(outcome, boltzmann(FOUR_ARMS, 0.5)) <= CLOSE


@pytest.mark.parametrize("name", ["a2c", "conservative_ppo", "grpo"])
def test_as_published_it_finds_the_point_that_its_own_terms_define(name):
    outcome = trained(planned(ALGOS[name], {}), seed=0)
    assert _distance(outcome, outcome.target_PK) <= CLOSE


@pytest.mark.parametrize("name", ["dr_grpo", "dapo", "gspo", "cispo"])
def test_without_kl_it_finds_the_best_arm(name):
    outcome = trained(planned(ALGOS[name], {}), seed=0)
    assert _distance(outcome, best_arm(FOUR_ARMS)) <= CLOSE


def test_grpo_as_published_is_far_from_the_optimum_of_its_own_kl_coef():
    outcome = trained(planned(ALGOS["grpo"], {"steps": 200}), seed=0)
    assert _distance(outcome, boltzmann(FOUR_ARMS, 0.5)) > 0.3


@pytest.mark.parametrize(
    "chosen",
    [
        {"kl_placed": "loss", "kl_estimator": "k2"},
        {"kl_placed": "loss", "kl_estimator": "exact"},
        {"kl_placed": "loss", "kl_estimator": "k3"},
        {"kl_placed": "loss", "kl_estimator": "k1"},
        {"kl_placed": "reward", "kl_estimator": "exact"},
    ],
)
def test_rloo_with_the_kl_elsewhere(chosen):
    outcome = trained(planned(ALGOS["rloo"], chosen), seed=0)
    assert _distance(outcome, outcome.target_PK) <= CLOSE


def test_zscores_with_k2_in_the_loss_find_their_own_point_too():
    outcome = trained(planned(ALGOS["grpo"], {"kl_estimator": "k2"}), seed=0)
    assert _distance(outcome, outcome.target_PK) <= CLOSE


def test_k3_in_the_reward_starves_arms_that_the_optimum_keeps():
    # Boltzmann gives every arm 0.04 or more; a penalty that also punishes falling below the reference starves them.
    outcome = trained(planned(ALGOS["rloo"], {"kl_estimator": "k3"}), seed=0)
    assert boltzmann(FOUR_ARMS, 0.5).exp().min() > 0.04
    assert outcome.policy_SPK[-1].exp().min() < 1e-3
    assert outcome.target_PK is None


def test_the_same_seed_learns_the_same_policy():
    plan = planned(ALGOS["ppo"], {"steps": 20})
    first, again, other = trained(plan, 1), trained(plan, 1), trained(plan, 2)
    assert (first.policy_SPK == again.policy_SPK).all()
    assert (first.policy_SPK != other.policy_SPK).any()
