"""Advantages: how much better a token or a sequence was than expected.

Every function has one signature, so that an algorithm can name any of them:

    (reward_BT, value_BT, group_B, mask_BT, *, numbers) -> Advantage

    reward_BT: [B, T] reward units per token; a terminal score stands on the last real token.
    value_BT: [B, T] reward units, the critic's estimate before each token; zeros where there is no critic.
    group_B: [B] int64, which prompt a sequence answers.
    mask_BT: [B, T] bool.

None of them carries grad. Raises: ShapeError if shapes differ or the mask is not bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpipe.ops.masking import check_masked, masked_mean, masked_std, zero_outside
from rlpipe.types import Advantage

# Below this spread a group says nothing: its advantages are 0 / (0 + EPS) = 0 rather than noise blown up.
EPS = 1e-4


def group_zscore(reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor) -> Advantage:
    """Score minus the group's mean, over the group's sample standard deviation; the same for all tokens.

        A_i = (R_i - mean(R)) / (std(R) + 1e-4),   R_i = sum_t reward_it

    Source: arXiv:2402.03300, section 4.1.2. The paper leaves std and the epsilon open; we take the sample
    standard deviation (n - 1) and 1e-4, as TRL does, so that the two can be compared number by number.
    """
    check_masked(mask_BT, reward_BT=reward_BT, value_BT=value_BT)
    score_B = zero_outside(reward_BT, mask_BT).sum(1)
    mean_B, count_B = _group_mean(score_B, group_B)
    variance_B = _group_mean((score_B - mean_B).square(), group_B)[0] * count_B / (count_B - 1).clamp(min=1)
    return _spread((score_B - mean_B) / (variance_B.sqrt() + EPS), score_B, mask_BT)


def gae_whitened(
    reward_BT: Tensor, value_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> Advantage:
    """`gae`, its advantages then shifted and scaled to mean 0 and standard deviation 1 over all real tokens.

    Source: the whitening is PPO practice rather than the paper's: arXiv:2403.17031, detail 4.
    """
    raw = gae(reward_BT, value_BT, group_B, mask_BT, gamma=gamma, lam=lam)
    white_BT = (raw.adv_BT - masked_mean(raw.adv_BT, mask_BT)) / (masked_std(raw.adv_BT, mask_BT) + 1e-8)
    return Advantage(zero_outside(white_BT, mask_BT), raw.return_BT)


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
    next_adv_B = next_value_B = torch.zeros_like(reward_BT[:, 0])
    adv_BT = torch.zeros_like(reward_BT)
    for t in reversed(range(reward_BT.shape[1])):
        real_B = mask_BT[:, t]
        delta_B = reward_BT[:, t] + gamma * next_value_B - value_BT[:, t]
        adv_B = delta_B + gamma * lam * next_adv_B
        adv_BT[:, t] = zero_outside(adv_B, real_B)
        next_adv_B = torch.where(real_B, adv_B, next_adv_B)
        next_value_B = torch.where(real_B, value_BT[:, t], next_value_B)
    return Advantage(adv_BT, zero_outside(adv_BT + value_BT, mask_BT))


def _group_mean(values_B: Tensor, group_B: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's group mean and group size, both [B]."""
    groups, index_B = group_B.unique(return_inverse=True)
    sums = torch.zeros(len(groups), dtype=values_B.dtype, device=values_B.device).index_add(0, index_B, values_B)
    counts = torch.bincount(index_B, minlength=len(groups)).to(values_B.dtype)
    return (sums / counts)[index_B], counts[index_B]


def _spread(adv_B: Tensor, score_B: Tensor, mask_BT: Tensor) -> Advantage:
    """One advantage and one return for all tokens of a sequence."""
    weight_BT = mask_BT.to(adv_B.dtype)
    return Advantage(adv_B.unsqueeze(1) * weight_BT, score_B.unsqueeze(1) * weight_BT)
