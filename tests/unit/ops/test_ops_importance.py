"""The effective sample size of importance weights, as a share of the samples."""

import torch

from rlpipe.ops.importance import effective_sample_size


def _share(*weights: float) -> float:
    return effective_sample_size(torch.tensor(weights, dtype=torch.float64)).item()


def test_equal_weights_count_in_full():
    assert _share(3, 3, 3, 3) == 1.0  # 12^2 / (4 * 36)


def test_one_weight_alone_counts_as_one_of_n():
    assert _share(5, 0, 0, 0) == 0.25  # 5^2 / (4 * 25)


def test_in_between():
    assert _share(1, 2) == 0.9  # 3^2 / (2 * 5)
