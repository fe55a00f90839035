"""Critic losses per token, unreduced.

One signature: (value_BT, old_value_BT, return_BT, mask_BT, *, numbers) -> TokenLoss

    value_BT: [B, T] reward units, carries grad.
    old_value_BT: [B, T] reward units, the critic's estimate when the rollout was made.
    return_BT: [B, T] reward units.
    mask_BT: [B, T] bool.

Raises: ShapeError if shapes differ or mask_BT is not bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpipe.ops.masking import check_masked, masked_mean, zero_outside
from rlpipe.types import ValueLoss


def value_squared(value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> ValueLoss:
    """Half the squared error:  l = (V - R)^2 / 2. Source: arXiv:1602.01783, algorithm S3."""
    value_BT, _, return_BT = _real(value_BT, old_value_BT, return_BT, mask_BT)
    return ValueLoss((value_BT - return_BT).square() / 2, {})


def value_clipped(
    value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor, *, value_clip: float
) -> ValueLoss:
    """Half the larger of the plain and the clipped squared error.

        l = max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) / 2

    Args: value_clip c > 0, reward units.
    Source: practice since OpenAI baselines' ppo2; arXiv:2403.17031, detail 9.
    """
    value_BT, old_value_BT, return_BT = _real(value_BT, old_value_BT, return_BT, mask_BT)
    near_BT = old_value_BT + (value_BT - old_value_BT).clamp(-value_clip, value_clip)
    plain_BT, clipped_BT = (value_BT - return_BT).square(), (near_BT - return_BT).square()
    clip_frac_BT = (clipped_BT > plain_BT).float()
    return ValueLoss(torch.maximum(plain_BT, clipped_BT) / 2, {"value/clip_frac": clip_frac_BT})


def explained_variance(value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Scalar 1 - Var(R - V) / Var(R) over real tokens: 1 is perfect, 0 no better than a constant."""

    def variance(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, mask_BT)).square(), mask_BT)

    return 1 - variance(return_BT - value_BT) / variance(return_BT).clamp(min=1e-8)


def _real(value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three with zeros under the mask, where their errors are 0 then."""
    check_masked(mask_BT, value_BT=value_BT, old_value_BT=old_value_BT, return_BT=return_BT)
    return zero_outside(value_BT, mask_BT), zero_outside(old_value_BT, mask_BT), zero_outside(return_BT, mask_BT)
