"""Policy losses per token, unreduced.

One signature: (logp_BT, old_logp_BT, adv_BT, mask_BT, *, numbers) -> TokenLoss

    logp_BT: [B, T] nats, the policy in training, carries grad.
    old_logp_BT: [B, T] nats, the policy that sampled, no grad.
    adv_BT: [B, T] reward units, no grad.
    mask_BT: [B, T] bool.

Raises: ShapeError if shapes differ or the mask is not bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpipe.ops.masking import check_masked, zero_outside
from rlpipe.types import TokenLoss


def ppo_clip(
    logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, *, clip_low: float, clip_high: float
) -> TokenLoss:
    """Clipped surrogate.

        l = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A),   r = exp(logp - old_logp)

    Args: clip_low in (0, 1), clip_high > 0, dimensionless.
    Source: arXiv:1707.06347 eq. 7; asymmetric clip arXiv:2503.14476.
    """
    check_masked(mask_BT, logp_BT=logp_BT, old_logp_BT=old_logp_BT, adv_BT=adv_BT)
    # Masked before exp, so that garbage under the mask gives no inf * 0 in the backward pass.
    ratio_BT = zero_outside(logp_BT - old_logp_BT, mask_BT).exp()
    adv_BT = zero_outside(adv_BT, mask_BT)
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT = -torch.minimum(ratio_BT * adv_BT, clipped_BT * adv_BT)
    with torch.no_grad():
        metrics = {
            "policy/ratio_mean": ratio_BT,
            "policy/clip_frac_low": ((ratio_BT < 1 - clip_low) & (adv_BT < 0)).float(),
            "policy/clip_frac_high": ((ratio_BT > 1 + clip_high) & (adv_BT > 0)).float(),
            "kl/old_new": ratio_BT - 1 - ratio_BT.log(),
        }
    return TokenLoss(zero_outside(loss_BT, mask_BT), {k: v.detach() for k, v in metrics.items()})
