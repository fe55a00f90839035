"""KL(policy || reference) per token: estimated from samples of the policy, or exact over the vocabulary.

With r = ref(x) / policy(x) and x drawn from the policy:

    k1 = -log r              unbiased, may be negative
    k2 = (log r)^2 / 2       biased, low variance
    k3 = (r - 1) - log r     unbiased, never negative

As terms of a loss they differ from what they measure: the gradient of k1 is 0 in expectation, that of k2 is the
gradient of the KL itself, that of k3 the gradient of the KL the other way round.

Source: J. Schulman, "Approximating KL Divergence", 2020.
"""

from __future__ import annotations

from torch import Tensor

from rlpipe.ops.masking import check_masked, zero_outside
from rlpipe.ops.needs import needs


def k1(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """[B, T] nats: log policy - log reference."""
    return logp_BT - ref_logp_BT


def k2(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """[B, T] nats: half the squared log-ratio."""
    return (logp_BT - ref_logp_BT).square() / 2


def k3(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """[B, T] nats: r - 1 - log r with r = reference / policy."""
    log_ratio_BT = ref_logp_BT - logp_BT
    return log_ratio_BT.expm1() - log_ratio_BT


@needs(vocabulary=True)
def exact(log_probs_BTV: Tensor, ref_log_probs_BTV: Tensor) -> Tensor:
    """[B, T] nats: sum_v p_v (log p_v - log q_v) over the whole vocabulary, from two log-softmaxes."""
    return (log_probs_BTV.exp() * (log_probs_BTV - ref_log_probs_BTV)).sum(-1)


def hinge(kl_BT: Tensor, mask_BT: Tensor, *, kl_threshold: float) -> tuple[Tensor, Tensor]:
    """The square of what each response's KL exceeds a threshold by.

        violation = max(0, sum_t kl_t - kl_threshold),   penalty = violation^2

    Returns: ([B, T] the penalty, shared equally among the response's tokens, so that a sum over them gives it
        back; [B] the violation, detached). Nats squared and nats a response.
    Source: the quadratic penalty of constrained optimisation (J. Nocedal and S. Wright, "Numerical Optimization",
    section 17.1), with the KL of arXiv:1909.08593 as the constraint.
    """
    check_masked(mask_BT, kl_BT=kl_BT)
    violation_B = (zero_outside(kl_BT, mask_BT).sum(1) - kl_threshold).clamp(min=0)
    share_BT = mask_BT.to(kl_BT.dtype) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return violation_B.square().unsqueeze(1) * share_BT, violation_B.detach()
