"""From a score per sequence to a reward per token."""

from __future__ import annotations

from torch import Tensor

from rlpipe.ops.masking import check_masked, last_true, zero_outside


def terminal(score_B: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, T]: the whole score on the last real token, 0 elsewhere."""
    return last_true(mask_BT).to(score_B.dtype) * score_B.unsqueeze(1)


def kl_penalised(reward_BT: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float) -> Tensor:
    """[B, T]: reward - kl_coef * kl, on real tokens. Source: arXiv:1909.08593 eq. 2, per token."""
    check_masked(mask_BT, reward_BT=reward_BT, kl_BT=kl_BT)
    return zero_outside(reward_BT - kl_coef * kl_BT, mask_BT)
