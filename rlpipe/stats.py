"""Intervals: no rate is shown without one."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% score interval of a binomial share: holds near 0 and 1, where the plain one fails.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
