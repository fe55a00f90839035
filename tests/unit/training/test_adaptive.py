"""What remembers from step to step, worked by hand."""

import pytest
import torch

from rlpipe.algos.base import KL
from rlpipe.ops.control import doubling, fixed
from rlpipe.ops.kl import k1
from rlpipe.training.adaptive import COEFFICIENT_RANGE, Coefficient, RewardShaping, RunningMean


def test_a_coefficient_follows_its_control():
    coefficient = Coefficient(KL(k1, "reward", doubling), {"kl_coef": 0.1, "kl_target": 1.0})
    for kl, expected in ((2.0, 0.2), (1.0, 0.2), (0.1, 0.1)):
        coefficient.follow(kl)
        assert coefficient.value == pytest.approx(expected)


def test_an_adaptive_coefficient_stays_within_its_range():
    coefficient = Coefficient(KL(k1, "reward", doubling), {"kl_coef": 0.1, "kl_target": 1.0})
    for _ in range(20):
        coefficient.follow(0.0)
    assert coefficient.value == pytest.approx(0.1 / COEFFICIENT_RANGE)


def test_a_fixed_coefficient_stays():
    coefficient = Coefficient(KL(k1, "loss", fixed), {"kl_coef": 0.3})
    coefficient.follow(100.0)
    assert coefficient.value == 0.3


def test_a_running_mean_is_corrected_for_its_start():
    # decay 0.5: after 1 alone the mean is 1; after 1 and 3 it is (0.25 * 1 + 0.5 * 3) / 0.75.
    mean = RunningMean(0.5)
    assert mean.value == 0
    mean.follow(1.0)
    assert mean.value == pytest.approx(1)
    mean.follow(3.0)
    assert mean.value == pytest.approx(1.75 / 0.75)


def test_running_normalisation_is_that_of_all_scores_so_far():
    parts = [torch.tensor([1.0, 2.0, 6.0]), torch.tensor([4.0, -3.0]), torch.tensor([0.5])]
    shaping = RewardShaping("running", {})
    for number, part in enumerate(parts):
        seen = torch.cat(parts[: number + 1])
        torch.testing.assert_close(shaping(part), (part - seen.mean()) / seen.std(unbiased=False))


def test_shaping_normalises_then_scales_then_clips():
    # 0 and 4: mean 2, spread 2 -> -1 and 1, times 3 -> -3 and 3, clipped at 2.
    shaping = RewardShaping("step", {"reward_scale": 3.0, "reward_clip": 2.0})
    assert shaping(torch.tensor([0.0, 4.0])).tolist() == pytest.approx([-2, 2])


def test_equal_scores_normalise_to_zero():
    assert RewardShaping("step", {})(torch.tensor([0.7, 0.7])).tolist() == [0, 0]
    assert RewardShaping("running", {})(torch.tensor([0.7])).tolist() == [0]


def test_without_settings_scores_stay():
    assert RewardShaping(None, {})(torch.tensor([5.0, -7.0])).tolist() == [5, -7]
