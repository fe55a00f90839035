"""How the weight of the KL term follows the KL that was measured.

One signature: (coef, kl, *, numbers) -> coef of the next step. `kl` is nats a response.
"""

from __future__ import annotations


def fixed(coef: float, kl: float) -> float:
    """The weight stays."""
    return coef


def proportional(coef: float, kl: float, *, kl_target: float, kl_gain: float) -> float:
    """A weight that rises above the target and falls below it, by at most a fifth of the gain a step.

        coef (1 + kl_gain clip(kl / kl_target - 1, -0.2, 0.2))

    Args: kl_target > 0, nats a response; kl_gain in (0, 1]: samples a step over the paper's horizon.
    Source: arXiv:1909.08593 section 2.2.
    """
    return coef * (1 + kl_gain * min(max(kl / kl_target - 1, -0.2), 0.2))


def doubling(coef: float, kl: float, *, kl_target: float) -> float:
    """Twice the weight beyond 1.5 times the target, half of it below the target over 1.5.

    Source: arXiv:1707.06347 section 4.
    """
    if kl > 1.5 * kl_target:
        return coef * 2
    return coef / 2 if kl < kl_target / 1.5 else coef


def rising(coef: float, kl: float, *, kl_target: float) -> float:
    """Twice the weight beyond 1.5 times the target; it never falls, for a penalty that is 0 below its threshold.

    Source: the quadratic penalty method, J. Nocedal and S. Wright, "Numerical Optimization", framework 17.1.
    """
    return coef * 2 if kl > 1.5 * kl_target else coef
