"""Numbers from the literature's examples, worked by hand."""

import math

import pytest
import torch

from rlpipe.ops.advantages import gae, group_centred, group_zscore, group_zscore_population, leave_one_out
from rlpipe.ops.kl import k1, k2, k3
from rlpipe.ops.policy import ppo_clip
from rlpipe.ops.preference import dpo
from tests.unit.ops.inputs import pairs

# ---- a GRPO group -------------------------------------------------------------------------------------

REWARDS = [0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.5, 0.4]
# Mean 4.4 / 8 = 0.55. Deviations .35 .25 .15 .05 -.25 -.35 -.05 -.15; their squares sum to
# .1225 + .0625 + .0225 + .0025 + .0625 + .1225 + .0025 + .0225 = 0.42.
DEVIATIONS = [0.35, 0.25, 0.15, 0.05, -0.25, -0.35, -0.05, -0.15]


def _of_group(op):
    reward = torch.tensor(REWARDS, dtype=torch.float64).unsqueeze(1)
    mask, group = torch.ones(8, 1).bool(), torch.zeros(8).long()
    return op(reward, torch.zeros_like(reward), group, mask).adv_BT.flatten().tolist()


def test_grpo_with_the_sample_standard_deviation():
    # sqrt(0.42 / 7) = 0.244949: the first is 0.35 / 0.245049 = 1.4283.
    assert _of_group(group_zscore) == pytest.approx([d / (math.sqrt(0.06) + 1e-4) for d in DEVIATIONS])
    assert _of_group(group_zscore)[0] == pytest.approx(1.4283, abs=5e-5)


def test_grpo_with_the_population_standard_deviation():
    # sqrt(0.42 / 8) = 0.229129: the first is 0.35 / 0.229229 = 1.5269.
    assert _of_group(group_zscore_population) == pytest.approx([d / (math.sqrt(0.0525) + 1e-4) for d in DEVIATIONS])
    assert _of_group(group_zscore_population)[0] == pytest.approx(1.5269, abs=5e-5)


def test_dr_grpo_keeps_the_deviations():
    assert _of_group(group_centred) == pytest.approx(DEVIATIONS)


def test_rloo_stretches_them_by_8_sevenths():
    # R - (4.4 - R) / 7 = (8 R - 4.4) / 7 = 8/7 (R - 0.55)
    assert _of_group(leave_one_out) == pytest.approx([8 / 7 * d for d in DEVIATIONS])


# ---- KL estimates -------------------------------------------------------------------------------------

LOGP, REF = torch.tensor([[-1.2, -2.5, -0.8, -0.3], [-1.3, -2.0, -0.9, -1.5]], dtype=torch.float64)
# log policy - log reference: 0.1 -0.5 0.1 1.2


def test_k1_and_k2():
    assert k1(LOGP, REF).sum().item() == pytest.approx(0.9)
    assert k2(LOGP, REF).sum().item() == pytest.approx(0.855)  # (0.01 + 0.25 + 0.01 + 1.44) / 2


def test_k3_takes_the_ratio_of_the_reference_to_the_policy():
    # e^-0.1 + e^0.5 + e^-0.1 + e^-1.2 = 0.904837 + 1.648721 + 0.904837 + 0.301194 = 3.759590
    #   sum of (r - 1) - log r, r = reference / policy:  3.759590 - 4 + 0.9 = 0.659590
    assert k3(LOGP, REF).sum().item() == pytest.approx(0.659590, abs=1e-6)


def test_the_widely_copied_table_names_the_other_ratio_and_gives_neither_number():
    """It defines k3 = (r - 1) - log r with r = policy / reference, and reports 0.657 for these log-probs.

    That formula gives 1.237 here; the right one 0.660. So 0.657 follows from neither: it is the right one's value with
    an error in the third decimal. On samples of the policy the table's formula estimates something else altogether.
    """
    ratio = (LOGP - REF).exp()
    tables = (ratio - 1) - ratio.log()
    # e^0.1 + e^-0.5 + e^0.1 + e^1.2 = 6.136990;  6.136990 - 4 - 0.9 = 1.236990
    assert tables.sum().item() == pytest.approx(1.236990, abs=1e-6)
    assert abs(tables.sum().item() - 0.657) > 0.5
    assert 0.002 < k3(LOGP, REF).sum().item() - 0.657 < 0.003

    # Over samples of p = (3/4, 1/4) with q = (1/2, 1/2):
    #   E[k3] = sum p (q/p - 1 - log(q/p)) = KL(p || q) = 0.1308, since sum p (q/p - 1) = 0
    #   E[table's] = sum p (p/q - 1) - KL(p || q) = (9/8 + 1/8 - 1) - 0.1308 = 0.1192
    p, q = (torch.tensor(x, dtype=torch.float64) for x in ([0.75, 0.25], [0.5, 0.5]))
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(kl)
    assert (p * (p / q - 1 - (p / q).log())).sum().item() == pytest.approx(0.25 - kl)


# ---- GAE, PPO, DPO ------------------------------------------------------------------------------------


def test_gae_over_three_tokens_with_a_terminal_reward():
    # r = 0 0 1, V = 0.5 0.6 0.8, gamma 0.9, lambda 0.5:
    #   delta = 0.9*0.6 - 0.5, 0.9*0.8 - 0.6, 1 - 0.8  = 0.04, 0.12, 0.2
    #   A_2 = 0.2;  A_1 = 0.12 + 0.45*0.2 = 0.21;  A_0 = 0.04 + 0.45*0.21 = 0.1345;  returns A + V
    reward, value = torch.tensor([[[0.0, 0.0, 1.0]], [[0.5, 0.6, 0.8]]], dtype=torch.float64)
    advantage = gae(reward, value, torch.tensor([0]), torch.ones(1, 3).bool(), gamma=0.9, lam=0.5)
    assert advantage.adv_BT.tolist()[0] == pytest.approx([0.1345, 0.21, 0.2])
    assert advantage.return_BT.tolist()[0] == pytest.approx([0.6345, 0.81, 1.0])


def test_ppo_on_one_token_that_became_likelier():
    # From probability 0.2 to 0.3: r = 1.5. With A = 2 the clip at 1.2 holds: l = -2.4. With A = -2 it does not: l = 3.
    logp, old = torch.tensor([[math.log(0.3)]]), torch.tensor([[math.log(0.2)]])
    mask = torch.ones(1, 1).bool()
    for adv, loss in ((2.0, -2.4), (-2.0, 3.0)):
        found = ppo_clip(logp, old, torch.tensor([[adv]]), mask, clip_low=0.2, clip_high=0.2)
        assert found.loss_BT.item() == pytest.approx(loss)


def test_dpo_on_one_pair():
    # beta 0.1, gains 2 and -3: h = 0.1 * 5 = 0.5, l = log(1 + e^-0.5) = 0.474077; margin 0.5.
    loss = dpo(pairs(-10.0, -15.0, -12.0, -12.0), beta=0.1, label_smoothing=0.0)
    assert loss.loss_B.item() == pytest.approx(0.474077, abs=1e-6)
    assert loss.metrics_B["preference/margin"].item() == pytest.approx(0.5)
