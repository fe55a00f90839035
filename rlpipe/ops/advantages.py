"""Advantages: how much better a token or a sequence was than expected.

Every function has one signature, so that an algorithm can name any of them:

    (reward_BT, value_BT, group_B, mask_BT, *, numbers) -> Advantage

    reward_BT: [B, T] reward units per token; a terminal score stands on the last real token.
    value_BT: [B, T] reward units, the estimate before each token: a critic's, or a running mean; zeros without one.
    group_B: [B] int64, which prompt a sequence answers.
    mask_BT: [B, T] bool.

None of them carries grad. Raises: ShapeError if shapes differ or the mask is not bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpipe.ops.groups import group_count, group_mean, group_sum
from rlpipe.ops.masking import check_masked, masked_mean, masked_std, zero_outside
from rlpipe.ops.needs import needs
from rlpipe.types import Advantage

# Below this spread a group says nothing: its advantages are 0 / (0 + EPS) = 0 rather than noise blown up.
EPS = 1e-4


# ---- one number for all tokens of a response: compared with its siblings -----------------------------


@needs(group=2, because="it compares each sample with its siblings")
def group_zscore(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor) -> Advantage:
    """Score minus the group's mean, over the group's sample standard deviation; the same for all tokens.

        A_i = (R_i - mean(R)) / (std(R) + 1e-4),   R_i = sum_t reward_it

    Source: arXiv:2402.03300, section 4.1.2. The paper leaves std and the epsilon open; we take the sample
    standard deviation (n - 1) and 1e-4, as TRL does, so that the two can be compared number by number.
    """
    score_B = _scores(reward_BT, value_BT, mask_BT)
    count_B = group_count(score_B, group_B)
    return _spread(_zscore(score_B, group_B, (count_B - 1).clamp(min=1)), score_B, mask_BT)


@needs(group=2, because="it compares each sample with its siblings")
def group_zscore_population(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor) -> Advantage:
    """As `group_zscore`, with the population's standard deviation (n)."""
    score_B = _scores(reward_BT, value_BT, mask_BT)
    return _spread(_zscore(score_B, group_B, group_count(score_B, group_B)), score_B, mask_BT)


@needs(group=2, because="it subtracts the group's mean")
def group_centred(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor) -> Advantage:
    """Score minus the group's mean: no division by a spread, so easy and hard prompts weigh as they are.

    Source: Dr. GRPO, arXiv:2503.20783.
    """
    score_B = _scores(reward_BT, value_BT, mask_BT)
    return _spread(score_B - group_mean(score_B, group_B), score_B, mask_BT)


@needs(group=2, because="it subtracts the siblings' mean")
def leave_one_out(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor) -> Advantage:
    """Score minus the mean of the other samples of the group: a baseline that the sample itself does not move.

        A_i = R_i - 1/(n - 1) sum_{j != i} R_j

    A group of one (its siblings had no score) gets 0. Source: RLOO, arXiv:2402.14740 eq. 8.
    """
    score_B = _scores(reward_BT, value_BT, mask_BT)
    others_B = group_count(score_B, group_B) - 1
    mean_B = (group_sum(score_B, group_B) - score_B) / others_B.clamp(min=1)
    return _spread(torch.where(others_B > 0, score_B - mean_B, torch.zeros_like(score_B)), score_B, mask_BT)


@needs(group=2, because="it subtracts the group's mean")
def group_centred_batch_zscore(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor) -> Advantage:
    """Score minus the group's mean, then mean 0 and standard deviation 1 over all real tokens of the step.

    Source: REINFORCE++ with a group baseline, arXiv:2501.03262.
    """
    centred = group_centred(reward_BT, value_BT, group_B, mask_BT)
    return Advantage(_whitened(centred.adv_BT, mask_BT), centred.return_BT)


# ---- a number a token: discounted returns -------------------------------------------------------------


@needs(values="welcome")
def monte_carlo(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float) -> Advantage:
    """The discounted sum of what is still to come, minus the value estimate (0 where nothing estimates it).

        G_t = sum_{k >= t} gamma^(k - t) r_k,   A_t = G_t - V_t,   return_t = G_t

    Source: R. J. Williams, "Simple statistical gradient-following algorithms", Machine Learning 8, 1992.
    """
    return gae(reward_BT, value_BT, group_B, mask_BT, gamma=gamma, lam=1.0)


def batch_centred(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float) -> Advantage:
    """Discounted return minus the step's mean return at all real tokens.

    Source: the constant baseline of R. J. Williams 1992; the step's own mean as its estimate.
    """
    returns_BT = _returns(reward_BT, value_BT, group_B, mask_BT, gamma)
    return Advantage(zero_outside(returns_BT - masked_mean(returns_BT, mask_BT), mask_BT), returns_BT)


def batch_zscore(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float) -> Advantage:
    """Discounted return, shifted and scaled to mean 0 and standard deviation 1 over all real tokens of the step.

    Source: REINFORCE++, arXiv:2501.03262; gamma is 1 there.
    """
    returns_BT = _returns(reward_BT, value_BT, group_B, mask_BT, gamma)
    return Advantage(_whitened(returns_BT, mask_BT), returns_BT)


# ---- a number a token: bootstrapped from values -------------------------------------------------------


@needs(values="needed")
def td(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float) -> Advantage:
    """One-step temporal difference:  A_t = r_t + gamma V_{t+1} - V_t.

    Source: R. S. Sutton and A. G. Barto, "Reinforcement Learning", 2nd ed., section 13.5.
    """
    return n_step_td(reward_BT, value_BT, group_B, mask_BT, gamma=gamma, td_steps=1)


@needs(values="needed")
def n_step_td(
    reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float, td_steps: int
) -> Advantage:
    """n rewards, then the value estimate n tokens on (0 behind the last real token), minus the value here.

        A_t = sum_{k < n} gamma^k r_{t+k} + gamma^n V_{t+n} - V_t,   return_t = A_t + V_t

    Source: A2C, the synchronous form of arXiv:1602.01783, section 4.
    """
    check_masked(mask_BT, reward_BT=reward_BT, value_BT=value_BT)
    reward_BT, value_BT = zero_outside(reward_BT, mask_BT), zero_outside(value_BT, mask_BT)
    return_BT = _ahead(value_BT, td_steps) * gamma**td_steps
    for k in range(min(td_steps, reward_BT.shape[1])):
        return_BT = return_BT + gamma**k * _ahead(reward_BT, k)
    return_BT = zero_outside(return_BT, mask_BT)
    return Advantage(return_BT - value_BT, return_BT)


@needs(values="needed")
def gae(
    reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> Advantage:
    """Generalised advantage estimation over the real tokens of each row.

        delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lam A_{t+1},   return_t = A_t + V_t

    V after the last real token is 0: the episode ends there.
    Source: arXiv:1506.02438, eq. 16.
    """
    check_masked(mask_BT, reward_BT=reward_BT, value_BT=value_BT)
    reward_BT, value_BT = zero_outside(reward_BT, mask_BT), zero_outside(value_BT, mask_BT)
    delta_BT = reward_BT + gamma * _ahead(value_BT, 1) - value_BT
    next_adv_B = torch.zeros_like(reward_BT[:, 0])
    adv_BT = torch.zeros_like(reward_BT)
    for t in reversed(range(reward_BT.shape[1])):
        next_adv_B = zero_outside(delta_BT[:, t] + gamma * lam * next_adv_B, mask_BT[:, t])
        adv_BT[:, t] = next_adv_B
    return Advantage(adv_BT, zero_outside(adv_BT + value_BT, mask_BT))


@needs(values="needed")
def gae_whitened(
    reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> Advantage:
    """`gae`, its advantages then shifted and scaled to mean 0 and standard deviation 1 over all real tokens.

    Source: the whitening is PPO practice rather than the paper's: arXiv:2403.17031, detail 4.
    """
    raw = gae(reward_BT, value_BT, group_B, mask_BT, gamma=gamma, lam=lam)
    return Advantage(_whitened(raw.adv_BT, mask_BT), raw.return_BT)


def _scores(reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """[B]: each response's whole reward."""
    check_masked(mask_BT, reward_BT=reward_BT, value_BT=value_BT)
    return zero_outside(reward_BT, mask_BT).sum(1)


def _zscore(score_B: Tensor, group_B: Tensor, divisor_B: Tensor) -> Tensor:
    centred_B = score_B - group_mean(score_B, group_B)
    return centred_B / ((group_sum(centred_B.square(), group_B) / divisor_B).sqrt() + EPS)


def _spread(adv_B: Tensor, score_B: Tensor, mask_BT: Tensor) -> Advantage:
    """One advantage and one return for all tokens of a sequence."""
    weight_BT = mask_BT.to(adv_B.dtype)
    return Advantage(adv_B.unsqueeze(1) * weight_BT, score_B.unsqueeze(1) * weight_BT)


def _returns(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, gamma: float) -> Tensor:
    """[B, T]: discounted returns, whatever the values."""
    return monte_carlo(reward_BT, torch.zeros_like(value_BT), group_B, mask_BT, gamma=gamma).return_BT


def _whitened(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    white_BT = (values_BT - masked_mean(values_BT, mask_BT)) / (masked_std(values_BT, mask_BT) + 1e-8)
    return zero_outside(white_BT, mask_BT)


def _ahead(values_BT: Tensor, by: int) -> Tensor:
    """[B, T]: at t what stands at t + by, 0 behind the end."""
    shifted_BT = torch.zeros_like(values_BT)
    if by < values_BT.shape[1]:
        shifted_BT[:, : values_BT.shape[1] - by] = values_BT[:, by:]
    return shifted_BT
