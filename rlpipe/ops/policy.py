"""Policy losses per token, unreduced.

One signature: (logp_BT, old_logp_BT, adv_BT, mask_BT, *, numbers) -> TokenLoss

    logp_BT: [B, T] nats, the policy in training, carries grad.
    old_logp_BT: [B, T] nats, the policy that sampled, no grad.
    adv_BT: [B, T] reward units, no grad.
    mask_BT: [B, T] bool.

Throughout, r = exp(logp - old_logp) is a token's ratio. Raises: ShapeError if shapes differ or the mask is not bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlpipe.ops.masking import check_masked, zero_outside
from rlpipe.ops.needs import needs
from rlpipe.types import TokenLoss


@needs(on_policy=True)
def reinforce(logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor) -> TokenLoss:
    """Plain policy gradient:  l = -A logp.

    Source: R. J. Williams, "Simple statistical gradient-following algorithms", Machine Learning 8, 1992.
    """
    ratio_BT, adv_BT = _ratio(logp_BT, old_logp_BT, adv_BT, mask_BT)
    return _loss(-adv_BT * zero_outside(logp_BT, mask_BT), ratio_BT, mask_BT)


def ppo_clip(
    logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, *, clip_low: float, clip_high: float
) -> TokenLoss:
    """Clipped surrogate.

        l = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)

    Args: clip_low in (0, 1), clip_high > 0, dimensionless.
    Source: arXiv:1707.06347 eq. 7; asymmetric clip arXiv:2503.14476.
    """
    ratio_BT, adv_BT = _ratio(logp_BT, old_logp_BT, adv_BT, mask_BT)
    return _clipped(ratio_BT, adv_BT, mask_BT, clip_low, clip_high)


def dual_clip(
    logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor,
    *, clip_low: float, clip_high: float, dual_clip: float,
) -> TokenLoss:  # fmt: skip
    """`ppo_clip`, and for negative advantages no more than dual_clip |A|, however large the ratio.

        l = min(l_clip, -dual_clip A)  where A < 0

    Args: dual_clip > 1 + clip_high, dimensionless. Source: arXiv:1912.09729 eq. 5.
    """
    ratio_BT, adv_BT = _ratio(logp_BT, old_logp_BT, adv_BT, mask_BT)
    single = _clipped(ratio_BT, adv_BT, mask_BT, clip_low, clip_high)
    bounded_BT = torch.where(adv_BT < 0, torch.minimum(single.loss_BT, -dual_clip * adv_BT), single.loss_BT)
    hit_BT = ((ratio_BT > dual_clip) & (adv_BT < 0)).float()
    return TokenLoss(bounded_BT, {**single.metrics_BT, "policy/dual_clip_frac": hit_BT}, single.ratio_BT)


def gspo(
    logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, *, clip_low: float, clip_high: float
) -> TokenLoss:
    """The clipped surrogate with one ratio for a whole response: the geometric mean of its tokens' ratios.

        s = exp(mean_t log r_t),   l = -min(s A, clip(s, 1 - clip_low, 1 + clip_high) A)   at every token

    Args: clip_low, clip_high: far smaller than PPO's, for s moves far less than r.
    Source: arXiv:2507.18071 eq. 5 and 7. The same loss stands at every token; `sequence_mean` gives the paper's.
    """
    log_ratio_BT, adv_BT = _log_ratio(logp_BT, old_logp_BT, adv_BT, mask_BT)
    mean_B1 = log_ratio_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    ratio_BT = zero_outside(mean_B1.expand_as(log_ratio_BT), mask_BT).exp()
    return _clipped(ratio_BT, adv_BT, mask_BT, clip_low, clip_high)


@needs(behaviour=True)
def truncated_is(logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, *, is_cap: float) -> TokenLoss:
    """Policy gradient weighted by each token's ratio, cut at a cap; the weight itself is no path for the gradient.

        l = -w A logp,   w = min(r, is_cap), constant

    Args: is_cap > 0, dimensionless. Unlike a clip, no token ever loses its gradient.
    Source: CISPO, arXiv:2506.13585 eq. 4, whose cap is 1 + eps_high; importance weights of old samples as in
    arXiv:1611.01224 section 3.
    """
    ratio_BT, adv_BT = _ratio(logp_BT, old_logp_BT, adv_BT, mask_BT)
    return _weighted(ratio_BT, ratio_BT.detach(), logp_BT, adv_BT, mask_BT, is_cap)


@needs(behaviour=True)
def truncated_is_sequence(
    logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, *, is_cap: float
) -> TokenLoss:
    """As `truncated_is`, with the whole response's ratio, the product over its tokens: unbiased below the cap.

        l = -w A logp,   w = min(prod_t r_t, is_cap), constant

    Source: the same; the ratio of whole responses is the importance weight of the sampled text.
    """
    log_ratio_BT, adv_BT = _log_ratio(logp_BT, old_logp_BT, adv_BT, mask_BT)
    whole_BT = log_ratio_BT.sum(1, keepdim=True).expand_as(log_ratio_BT).exp()
    return _weighted(log_ratio_BT.exp(), whole_BT.detach(), logp_BT, adv_BT, mask_BT, is_cap)


def _log_ratio(logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Log-ratio and advantages with zeros under the mask: garbage there gives no inf * 0 in the backward pass."""
    check_masked(mask_BT, logp_BT=logp_BT, old_logp_BT=old_logp_BT, adv_BT=adv_BT)
    return zero_outside(logp_BT - old_logp_BT, mask_BT), zero_outside(adv_BT, mask_BT)


def _ratio(logp_BT: Tensor, old_logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    log_ratio_BT, adv_BT = _log_ratio(logp_BT, old_logp_BT, adv_BT, mask_BT)
    return log_ratio_BT.exp(), adv_BT


def _clipped(ratio_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, clip_low: float, clip_high: float) -> TokenLoss:
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    return _loss(
        -torch.minimum(ratio_BT * adv_BT, clipped_BT * adv_BT),
        ratio_BT,
        mask_BT,
        {
            "policy/clip_frac_low": ((ratio_BT < 1 - clip_low) & (adv_BT < 0)).float(),
            "policy/clip_frac_high": ((ratio_BT > 1 + clip_high) & (adv_BT > 0)).float(),
        },
    )


def _weighted(
    ratio_BT: Tensor, weight_BT: Tensor, logp_BT: Tensor, adv_BT: Tensor, mask_BT: Tensor, cap: float
) -> TokenLoss:
    cut_BT = weight_BT.clamp(max=cap)
    loss = _loss(-cut_BT * adv_BT * zero_outside(logp_BT, mask_BT), ratio_BT, mask_BT)
    metrics_BT = {**loss.metrics_BT, "is/trunc_frac": (weight_BT > cap).float()}
    return TokenLoss(loss.loss_BT, metrics_BT, loss.ratio_BT, weight_BT=cut_BT)


def _loss(loss_BT: Tensor, ratio_BT: Tensor, mask_BT: Tensor, metrics_BT: dict[str, Tensor] | None = None) -> TokenLoss:
    ratio_BT = ratio_BT.detach()
    moved_BT = ratio_BT - 1 - ratio_BT.log()
    return TokenLoss(zero_outside(loss_BT, mask_BT), {"kl/old_new": moved_BT, **(metrics_BT or {})}, ratio_BT)
