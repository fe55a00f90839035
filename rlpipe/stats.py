"""Intervals: no rate is shown without one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Z_95 = 1.959963984540054


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% score interval of a binomial share: holds near 0 and 1, where the plain one fails.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% t-interval of the mean of independent, roughly normal values; at least two of them.

        mean ± t(0.975, n - 1) s / sqrt(n)

    Source: Student, "The probable error of a mean", 1908.
    """
    n = len(values)
    assert n >= 2, "one value says nothing of its spread"
    mean, half = statistics.fmean(values), t_quantile_95(n - 1) * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def t_quantile_95(degrees: int) -> float:
    """t such that a Student variable of that many degrees of freedom stays within ±t with probability 0.95."""
    # The probability grows with the angle atan(t / sqrt(degrees)): halve the interval that holds it.
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, degrees) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _t_within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle)), a finite sum for whole degrees of freedom.

    Source: M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
