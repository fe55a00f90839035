"""What a bakeoff says of each algorithm, as numbers over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rlpipe.comparison.collect import BASE, Measured, Trial, Trials
from rlpipe.stats import mean_interval

WINDOW = 5  # measurements that the moving mean of the reward averages over

Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """One algorithm over its seeds. None where there is nothing to say: no seed finished, or one for a spread.

    Attributes:
        finished: seeds whose training and evaluation finished; the others failed.
        accuracy, interval: mean held-out pass@1 with its 95% t-interval over seeds.
        gain, gain_interval: of accuracy over SFT's with the same seed.
        tokens_to_threshold: mean over the `reached` seeds of the tokens generated when the moving mean of the
            reward first reached the threshold.
        seed_std: sample standard deviation of accuracy between seeds.
        worst_drop: largest fall of the moving mean below its highest value so far, worst over seeds.
        kl: nats a response on the held-out tasks, mean over seeds.
        tokens: generated to learn from, mean over seeds.
        seconds: mean over the seeds of which it is known; `timed` of them.
        peak_mem_gb: largest over seeds.
    """

    algorithm: str
    finished: int
    accuracy: float | None
    interval: Interval | None
    gain: float | None
    gain_interval: Interval | None
    tokens_to_threshold: float | None
    reached: int
    seed_std: float | None
    worst_drop: float | None
    kl: float | None
    tokens: float | None
    seconds: float | None
    timed: int
    peak_mem_gb: float | None


def verdicts(trials: Trials, threshold: float) -> list[Verdict]:
    """One verdict an algorithm, SFT among them, the most accurate first and those that failed last."""
    base = {trial.seed: trial.accuracy for trial in trials.of(BASE)}
    found = [_verdict(name, trials.of(name), base, threshold) for name in trials.algorithms]
    return sorted(found, key=lambda verdict: -1.0 if verdict.accuracy is None else verdict.accuracy, reverse=True)


def moving_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value and the WINDOW - 1 before it; nothing before there are as many.

    It looks back only: what it says at a step was known at that step.
    """
    return [statistics.fmean(values[end - WINDOW : end]) for end in range(WINDOW, len(values) + 1)]


def tokens_to(curve: Sequence[Measured], threshold: float) -> float | None:
    """Tokens generated when the moving mean of the reward first is at least `threshold`; None if it never is."""
    smoothed = moving_mean([point.reward for point in curve])
    return next(
        (point.tokens for point, mean in zip(curve[WINDOW - 1 :], smoothed, strict=True) if mean >= threshold), None
    )


def worst_drop(curve: Sequence[Measured]) -> float | None:
    """How far the moving mean of the reward fell at most below its highest value so far; None if it is too short."""
    smoothed = moving_mean([point.reward for point in curve])
    highest, drop = -float("inf"), None
    for mean in smoothed:
        highest = max(highest, mean)
        drop = max(drop or 0.0, highest - mean)
    return drop


def _verdict(name: str, trials: Sequence[Trial], base: dict[int, float], threshold: float) -> Verdict:
    accuracies = [trial.accuracy for trial in trials]
    gains = [trial.accuracy - base[trial.seed] for trial in trials if trial.seed in base] if name != BASE else []
    reached = [tokens for trial in trials if (tokens := tokens_to(trial.curve, threshold)) is not None]
    drops = [drop for trial in trials if (drop := worst_drop(trial.curve)) is not None]
    seconds = [trial.cost.seconds for trial in trials if trial.cost.seconds is not None]
    peaks = [trial.cost.peak_mem_gb for trial in trials if trial.cost.peak_mem_gb is not None]
    return Verdict(
        algorithm=name,
        finished=len(trials),
        accuracy=_mean(accuracies),
        interval=_interval(accuracies),
        gain=_mean(gains),
        gain_interval=_interval(gains),
        tokens_to_threshold=_mean(reached),
        reached=len(reached),
        seed_std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        worst_drop=max(drops, default=None),
        kl=_mean([trial.kl for trial in trials]),
        tokens=_mean([trial.tokens for trial in trials]),
        seconds=_mean(seconds),
        timed=len(seconds),
        peak_mem_gb=max(peaks, default=None),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _interval(values: Sequence[float]) -> Interval | None:
    return mean_interval(values) if len(values) > 1 else None
