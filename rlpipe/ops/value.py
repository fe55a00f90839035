"""Critic losses per token, unreduced."""

from __future__ import annotations

import torch
from torch import Tensor

from rlpipe.ops.masking import check_masked, masked_mean, zero_outside
from rlpipe.types import TokenLoss


def value_clipped(
    value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor, *, value_clip: float
) -> TokenLoss:
    """Half the larger of the plain and the clipped squared error.

        l = max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) / 2

    Args:
        value_BT: [B, T] reward units, carries grad.
        old_value_BT: [B, T] reward units, the critic's estimate when the rollout was made.
        return_BT: [B, T] reward units.
        mask_BT: [B, T] bool.
        value_clip: > 0, reward units.
    Raises: ShapeError if shapes differ or mask_BT is not bool.
    Source: practice since OpenAI baselines' ppo2; arXiv:2403.17031, detail 9.
    """
    check_masked(mask_BT, value_BT=value_BT, old_value_BT=old_value_BT, return_BT=return_BT)
    value_BT, old_value_BT, return_BT = (zero_outside(x, mask_BT) for x in (value_BT, old_value_BT, return_BT))
    near_BT = old_value_BT + (value_BT - old_value_BT).clamp(-value_clip, value_clip)
    plain_BT, clipped_BT = (value_BT - return_BT).square(), (near_BT - return_BT).square()
    loss_BT = torch.maximum(plain_BT, clipped_BT) / 2
    clip_frac_BT = (clipped_BT > plain_BT).float()
    return TokenLoss(zero_outside(loss_BT, mask_BT), {"value/clip_frac": clip_frac_BT.detach()})


def explained_variance(value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Scalar 1 - Var(R - V) / Var(R) over real tokens: 1 is perfect, 0 no better than a constant."""

    def variance(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, mask_BT)).square(), mask_BT)

    return 1 - variance(return_BT - value_BT) / variance(return_BT).clamp(min=1e-8)
