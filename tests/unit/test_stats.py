"""Intervals against the tables, and against what they promise."""

from __future__ import annotations

import random

import pytest

from rlpipe.stats import mean_interval, t_quantile_95


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # The 0.975 column of any table of Student's t; both parities, because each has a series of its own.
    [
        (1, 12.7062),
        (2, 4.30265),
        (3, 3.18245),
        (4, 2.77645),
        (9, 2.26216),
        (10, 2.22814),
        (29, 2.04523),
        (120, 1.97993),
    ],
)
def test_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert t_quantile_95(degrees) == pytest.approx(quantile, rel=3e-6)  # the table has six digits


def test_the_interval_by_hand() -> None:
    # Mean 2, standard deviation 1, of three: 2 ± 4.30265 / √3 = 2 ± 2.48414.
    assert mean_interval([1, 2, 3]) == pytest.approx((-0.48414, 4.48414), rel=1e-5)
    assert mean_interval([5, 5]) == (5, 5)


def test_three_normal_values_catch_their_mean_19_times_of_20() -> None:
    draw = random.Random(0)
    samples = [[draw.gauss(7, 2) for _ in range(3)] for _ in range(4000)]
    caught = sum(low <= 7 <= high for low, high in map(mean_interval, samples)) / len(samples)
    # Standard error √(0.95 · 0.05 / 4000) = 0.0034; four of them.
    assert caught == pytest.approx(0.95, abs=0.014)
