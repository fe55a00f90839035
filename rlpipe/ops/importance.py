"""Importance weights of samples that another sampler drew, and what weights say about the samples they weigh.

A sampler's log-probs differ from the trainer's where its arithmetic does. A weight w multiplies the policy loss of a
token, w from r = p_trainer / p_sampler: a level says whose ratio it is, a mode what becomes of a large one.

    level: (logp_BT, sampler_logp_BT, mask_BT) -> ratio_BT      mode: (ratio_BT, *, cap) -> weight_BT

    logp_BT: [B, T] nats, the trainer's model as it was when the samples were drawn, at the sampling temperature.
    sampler_logp_BT: [B, T] nats, what the sampler says it drew by.
    mask_BT: [B, T] bool.

Raises: ShapeError if shapes differ or the mask is not bool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from rlpipe.ops.masking import check_masked, zero_outside


class Level(Protocol):
    """Whose ratio a token's weight is made from."""

    def __call__(self, logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor: ...


class Mode(Protocol):
    """What becomes of a ratio above the cap."""

    def __call__(self, ratio_BT: Tensor, *, cap: float) -> Tensor: ...


def token_ratio(logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, T]  r_t = exp(logp - sampler_logp), each token's own; 1 where masked. Biased, but of small variance."""
    return _log_ratio(logp_BT, sampler_logp_BT, mask_BT).exp()


def sequence_ratio(logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, T]  prod_t r_t, the whole response's at each of its tokens; 1 where masked. Unbiased before any cap."""
    whole_B1 = _log_ratio(logp_BT, sampler_logp_BT, mask_BT).sum(1, keepdim=True)
    return zero_outside(whole_B1.expand_as(logp_BT), mask_BT).exp()


def truncated(ratio_BT: Tensor, *, cap: float) -> Tensor:
    """w = min(r, cap).

    Args: cap > 0, dimensionless.
    Source: E. L. Ionides, "Truncated importance sampling", JCGS 17, 2008; between sampler and trainer
    see arXiv:2510.26788.
    """
    return ratio_BT.clamp(max=cap)


def masked(ratio_BT: Tensor, *, cap: float) -> Tensor:
    """w = r where r <= cap, else 0: what the sampler drew far too seldom teaches nothing.

    Args: cap > 0, dimensionless. Source: as `truncated`; arXiv:2510.26788 compares the two.
    """
    return torch.where(ratio_BT <= cap, ratio_BT, torch.zeros_like(ratio_BT))


LEVELS: Mapping[str, Level] = {"token": token_ratio, "sequence": sequence_ratio}
MODES: Mapping[str, Mode] = {"truncate": truncated, "mask": masked}


def mismatch(logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> dict[str, float]:
    """How far the sampler is from the trainer, before any cap: metrics over the real tokens.

    kl is the mean of r - 1 - log r: an estimate of KL(sampler || trainer) that is never negative. Quantiles are
    those of r, interpolated.
    """
    log_ratio_N = _log_ratio(logp_BT, sampler_logp_BT, mask_BT)[mask_BT]
    ratio_N = log_ratio_N.exp()
    low, half, high = ratio_N.quantile(ratio_N.new_tensor([0.01, 0.5, 0.99])).tolist()
    return {
        "kl/rollout_train": (ratio_N - 1 - log_ratio_N).mean().item(),
        "is/rollout_ratio_min": ratio_N.min().item(),
        "is/rollout_ratio_p01": low,
        "is/rollout_ratio_p50": half,
        "is/rollout_ratio_p99": high,
        "is/rollout_ratio_max": ratio_N.max().item(),
    }


def _log_ratio(logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, T] nats, 0 where masked."""
    check_masked(mask_BT, logp_BT=logp_BT, sampler_logp_BT=sampler_logp_BT)
    return zero_outside(logp_BT - sampler_logp_BT, mask_BT)


def effective_sample_size(weight_N: Tensor) -> Tensor:
    """Scalar share in (0, 1]:  (sum w)^2 / (n sum w^2). 1 when all weigh the same, 1/n when one outweighs the rest.

    Args: weight_N: [N] non-negative, not all 0.
    Source: A. Kong, "A note on importance sampling using standardized weights", 1992.
    """
    return weight_N.sum().square() / (len(weight_N) * weight_N.square().sum())
