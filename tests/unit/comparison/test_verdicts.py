"""What a bakeoff says of an algorithm, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from rlpipe.comparison.collect import Measured, Trials
from rlpipe.comparison.statistics import Verdict, moving_mean, tokens_to, verdicts, worst_drop

Curve = Callable[[Sequence[float]], tuple[Measured, ...]]


def of(trials: Trials, threshold: float = 0.3) -> dict[str, Verdict]:
    return {verdict.algorithm: verdict for verdict in verdicts(trials, threshold)}


def test_the_moving_mean_looks_back_over_five() -> None:
    # (1 + 2 + 3 + 4 + 5) / 5 = 3, (2 + 3 + 4 + 5 + 11) / 5 = 5
    assert moving_mean([1, 2, 3, 4, 5, 11]) == [3, 5]
    assert moving_mean([1, 2, 3, 4]) == []


def test_tokens_are_counted_to_the_end_of_the_window_that_reaches_the_threshold(curve: Curve) -> None:
    rewards = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]  # moving means 0.2, 0.4, 0.4 after 500, 600, 700 tokens
    assert tokens_to(curve(rewards), 0.2) == 500
    assert tokens_to(curve(rewards), 0.3) == 600
    assert tokens_to(curve(rewards), 0.5) is None  # single steps at 1.0 are luck
    assert tokens_to(curve([1.0] * 4), 0.5) is None  # too short to say


def test_the_worst_drop_is_from_the_highest_so_far(curve: Curve) -> None:
    # Moving means: 1, 0.8, 0.6, 0.6, 0.8, 1, 1. Falls by 0.4 below its start; the rise after it mends nothing.
    assert worst_drop(curve([1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1])) == pytest.approx(0.4)
    assert worst_drop(curve([0.1 * step for step in range(9)])) == 0  # never falls
    assert worst_drop(curve([1, 0, 0, 0])) is None


def test_means_and_spreads_are_over_seeds(trials: Trials) -> None:
    grpo = of(trials)["grpo"]
    assert grpo.finished == 2
    assert grpo.accuracy == pytest.approx(0.65)
    assert grpo.seed_std == pytest.approx(math.sqrt(0.005))  # ((-0.05)² + 0.05²) / (2 - 1)
    # 0.65 ± 12.7062 · 0.0707107 / √2 = 0.65 ± 0.635310
    assert grpo.interval == pytest.approx((0.014690, 1.285310), rel=1e-4)
    assert (grpo.kl, grpo.tokens, grpo.seconds, grpo.peak_mem_gb) == (2.5, 700, 12.0, 1.5)


def test_the_gain_is_paired_by_seed(trials: Trials) -> None:
    # 0.60 - 0.30 = 0.30 and 0.70 - 0.34 = 0.36. The pairs are nearer to each other than the accuracies are,
    # because a good seed is good for SFT too: 0.33 ± 12.7062 · 0.0424264 / √2 = 0.33 ± 0.381186.
    verdict = of(trials)["grpo"]
    assert verdict.gain == pytest.approx(0.33)
    assert verdict.gain_interval == pytest.approx((-0.051186, 0.711186), rel=1e-4)
    assert of(trials)["sft"].gain is None


def test_the_threshold_is_timed_over_the_seeds_that_reach_it(trials: Trials) -> None:
    # Seed 1: moving means 0.3, 0.4, 0.5 after 500, 600, 700 tokens. Seed 2 stays at 0.1.
    grpo = of(trials, threshold=0.35)["grpo"]
    assert (grpo.tokens_to_threshold, grpo.reached) == (600, 1)
    # All tokens of the pairs were spent before its first step.
    assert of(trials, threshold=0.35)["dpo"].tokens_to_threshold == 900
    assert of(trials, threshold=0.9)["grpo"].tokens_to_threshold is None


def test_one_seed_has_no_interval_and_none_has_nothing(trials: Trials) -> None:
    found = of(trials)
    assert (found["dpo"].finished, found["dpo"].accuracy) == (1, 0.5)
    assert (found["dpo"].interval, found["dpo"].seed_std, found["dpo"].gain_interval) == (None, None, None)
    assert found["dpo"].gain == pytest.approx(0.2)  # to SFT with seed 1, not to SFT's mean
    assert (found["ppo"].finished, found["ppo"].accuracy, found["ppo"].tokens) == (0, None, None)


def test_a_cost_that_is_not_known_is_left_out_and_said_to_be(trials: Trials) -> None:
    dpo = of(trials)["dpo"]
    assert (dpo.seconds, dpo.timed, dpo.peak_mem_gb) == (None, 0, 0.5)


def test_the_most_accurate_is_first_and_the_failed_last(trials: Trials) -> None:
    assert [verdict.algorithm for verdict in verdicts(trials, 0.3)] == ["grpo", "dpo", "sft", "ppo"]
