"""What a part of an algorithm is for: bandits on which it shows when the part is missing."""

from dataclasses import replace

import pytest
import torch

from rlpipe.algos import ALGOS
from rlpipe.bandit.demo import FOUR_ARMS, planned
from rlpipe.bandit.online import Table
from rlpipe.bandit.optimum import boltzmann
from rlpipe.bandit.table import bandit, kl, total_variation
from rlpipe.ops.policy import reinforce


@pytest.mark.parametrize("seed", [0, 1])
def test_ppo_without_its_clip_collapses_on_the_noise_of_samples_learned_eight_times(seed):
    # Two noisy draws a group, eight epochs over each step's 48: what the noise of one step says is followed too far.
    noisy = replace(FOUR_ARMS, noise=1.0)
    often = {"steps": 60, "epochs": 8, "group_size": 2}
    open_clip = {"clip_low": 1 - 1e-9, "clip_high": 1e9}

    def distance(numbers):
        learned = Table(planned(ALGOS["ppo"], {**often, **numbers}), noisy, seed).train()
        return total_variation(learned.policy_SPK[30:], boltzmann(noisy, 0.5)).mean()

    assert distance({}) < 0.2
    assert distance(open_clip) > 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_a2c_needs_its_critic_where_prompts_differ_in_difficulty(seed):
    # The same arms, rewards 4 up at one prompt and 4 down at another: a baseline that does not know the prompt leaves
    # that offset in every advantage. It has no expected gradient, only variance: about E[offset^2] = 32 / 3 times
    # E|grad log pi|^2 against a spread of rewards of about 0.1.
    offset = torch.tensor([[4.0], [0.0], [-4.0]], dtype=torch.float64)
    uneven = replace(FOUR_ARMS, reward_PK=FOUR_ARMS.reward_PK + offset)
    budget = {"steps": 150, "group_size": 2, "entropy_coef": 0.0}
    bare = {"advantage": "monte_carlo", "baseline": "none", "value_loss": "none"}

    def learn(chosen):
        table = Table(planned(ALGOS["a2c"], {**budget, **chosen}), uneven, seed)
        learned_PK = table.train().policy_SPK[-1]
        table.logits_PK = uneven.ref_PK.clone().requires_grad_()
        gradients = torch.stack([table.gradient(table.experience(table.draw())) for _ in range(50)])
        return total_variation(learned_PK, boltzmann(uneven, 0.5)), gradients.var(0).sum()

    (near, quiet), (far, loud) = learn({}), learn(bare)
    assert loud > 30 * quiet
    assert near < 0.02
    assert far > 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_without_importance_weights_old_samples_teach_the_wrong_arm(seed):
    # Arm 1 is the best (1.0) but the old policy draws it in 0.1 of the cases, arm 2 (0.8) in 0.7. Unweighted, logits
    # move by mu(a) (r(a) - E_mu r) for ever: 0.1 (1 - 0.66) = 0.034 for arm 1, 0.7 (0.8 - 0.66) = 0.098 for arm 2.
    arms = bandit([[0.0, 1.0, 0.8]], [[1 / 3, 1 / 3, 1 / 3]])
    old = torch.tensor([[0.2, 0.1, 0.7]], dtype=torch.float64).log()
    weighted = planned(ALGOS["importance_sampling"], {"kl_placed": "none", "group_size": 32, "lr": 1.0, "steps": 200})
    # What planned() itself refuses.
    unweighted = replace(weighted, algo=replace(weighted.algo, policy_loss=reinforce))
    right, wrong = (Table(plan, arms, seed, old).train().policy_SPK[-1].exp() for plan in (weighted, unweighted))
    assert right[0, 1] > 0.95
    assert wrong[0, 2] > 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_conservative_ppo_keeps_its_kl_where_ppo_without_kl_does_not(seed):
    # The weight rises as long as the KL is beyond 1.5 times its target, here the threshold itself.
    conservative = Table(planned(ALGOS["conservative_ppo"], {}), FOUR_ARMS, seed).train()
    free = Table(planned(ALGOS["ppo"], {"kl_coef": 0.0, "steps": 150}), FOUR_ARMS, seed).train()
    held = kl(conservative.policy_SPK[150:], FOUR_ARMS.ref_PK)
    assert held.max() <= 1.5 * 0.2
    assert kl(free.policy_SPK[-1], FOUR_ARMS.ref_PK) > 1.5
