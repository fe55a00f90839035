"""From a score per sequence to a reward per token."""

from __future__ import annotations

from torch import Tensor

from rlpipe.ops.masking import check_masked, last_true, zero_outside

# Below this spread scores say nothing: they become 0 / (0 + EPS) = 0 rather than noise blown up.
EPS = 1e-8


def scaled(score_B: Tensor, *, reward_scale: float) -> Tensor:
    """[B]: scores times a constant."""
    return score_B * reward_scale


def clipped(score_B: Tensor, *, reward_clip: float) -> Tensor:
    """[B]: scores no further from 0 than reward_clip."""
    return score_B.clamp(-reward_clip, reward_clip)


def standardised(score_B: Tensor, mean: float, std: float) -> Tensor:
    """[B]: scores in spreads from a mean: the step's own, or a running one."""
    return (score_B - mean) / (std + EPS)


def terminal(score_B: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, T]: the whole score on the last real token, 0 elsewhere."""
    return last_true(mask_BT).to(score_B.dtype) * score_B.unsqueeze(1)


def kl_penalised(reward_BT: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float) -> Tensor:
    """[B, T]: reward - kl_coef * kl, on real tokens. Source: arXiv:1909.08593 eq. 2, per token."""
    check_masked(mask_BT, reward_BT=reward_BT, kl_BT=kl_BT)
    return zero_outside(reward_BT - kl_coef * kl_BT, mask_BT)
