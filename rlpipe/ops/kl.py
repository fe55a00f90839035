"""Per-token estimators of KL(policy || reference) from samples of the policy.

With r = ref(x) / policy(x) and x drawn from the policy:

    k1 = -log r              unbiased, may be negative
    k2 = (log r)^2 / 2       biased, low variance
    k3 = (r - 1) - log r     unbiased, never negative

Source: J. Schulman, "Approximating KL Divergence", 2020.
"""

from __future__ import annotations

from torch import Tensor


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
