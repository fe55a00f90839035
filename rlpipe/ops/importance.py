"""What importance weights say about the samples they weigh."""

from __future__ import annotations

from torch import Tensor


def effective_sample_size(weight_N: Tensor) -> Tensor:
    """Scalar share in (0, 1]:  (sum w)^2 / (n sum w^2). 1 when all weigh the same, 1/n when one outweighs the rest.

    Args: weight_N: [N] non-negative, not all 0.
    Source: A. Kong, "A note on importance sampling using standardized weights", 1992.
    """
    return weight_N.sum().square() / (len(weight_N) * weight_N.square().sum())
