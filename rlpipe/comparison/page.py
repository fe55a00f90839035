"""The comparison as tables: markdown to read, CSV to work with, and the numbers that MLflow gets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rlpipe.comparison.collect import BASE, Trials
from rlpipe.comparison.statistics import WINDOW, Interval, Verdict
from rlpipe.types import Metrics

_NOTHING = "–"
_HEAD = (
    "algorithm", "accuracy, %", "gain over SFT, points", "tokens to threshold", "between seeds, points",
    "worst drop, points", "KL, nats", "seconds", "peak memory, GB", "tokens",
)  # fmt: skip


def markdown(trials: Trials, verdicts: Sequence[Verdict], threshold: float) -> str:
    """One page: what was compared, the table, how to read it, the pictures beside it."""
    budget = "no limit" if trials.token_budget is None else f"{trials.token_budget:,}"
    count = len(trials.seeds)
    rows = [_cells(verdict, count) for verdict in verdicts]
    return "\n".join([
        f"# Bakeoff {trials.name}",
        "",
        f"{len(trials.algorithms) - 1} algorithms, {count} {'seed' if count == 1 else 'seeds'} "
        f"({', '.join(map(str, trials.seeds))}) from one SFT model, {budget} generated tokens each; "
        f"threshold {100 * threshold:g}% of the moving mean of {WINDOW} measurements of the reward.",
        "",
        _line(_HEAD),
        _line("---" for _ in _HEAD),
        *(_line(row) for row in rows),
        "",
        f"- accuracy: pass@1 on {trials.tasks:,} held-out tasks, mean over seeds with its 95% t-interval; gain: the "
        "same of the difference to SFT with the same seed. Of one seed there is no interval.",
        "- tokens to threshold: generated when the reward's moving mean first reached it, mean over the seeds that "
        "did. For algorithms on pairs it is all of the pairs' tokens, spent before the first step.",
        "- between seeds: standard deviation of accuracy; worst drop: the reward's largest fall below its highest "
        "value so far (both by the moving mean), in the worst seed.",
        "- KL: to the SFT policy, summed over a response. seconds: of the policy stage's steps; peak memory: of "
        f"their process. {_NOTHING}: not known, or nothing to say.",
        "",
        "![accuracy, learning curves, reward against KL](bakeoff.png)",
        "![reward against KL](frontier.png)",
        "",
    ])  # fmt: skip


def table(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as CSV, numbers in full; empty where there is none."""
    return _csv([_flat(verdict) for verdict in verdicts])


def seeds_table(trials: Trials) -> str:
    """One CSV line a trial: what the verdicts are made of."""
    return _csv(
        [
            {
                "algorithm": trial.algorithm,
                "seed": trial.seed,
                "accuracy": trial.accuracy,
                "kl": trial.kl,
                "tokens": trial.tokens,
                "seconds": trial.cost.seconds,
                "peak_mem_gb": trial.cost.peak_mem_gb,
            }
            for trial in trials.trials
        ]
    )


def metrics(verdicts: Iterable[Verdict]) -> Metrics:
    """The verdicts by the names of `tracking.keys`; without those that say nothing."""
    return {
        f"bakeoff/{verdict.algorithm}/{name}": float(value)
        for verdict in verdicts
        for name, value in _flat(verdict).items()
        if name in _LOGGED and value is not None
    }


_LOGGED = (
    "seeds", "accuracy", "ci_low", "ci_high", "gain", "tokens_to_threshold", "seeds_reached", "seed_std", "worst_drop",
    "kl", "tokens", "seconds", "peak_mem_gb",
)  # fmt: skip


def _flat(verdict: Verdict) -> dict[str, Any]:
    low, high = verdict.interval or (None, None)
    gain_low, gain_high = verdict.gain_interval or (None, None)
    return {
        "algorithm": verdict.algorithm,
        "seeds": verdict.finished,
        "accuracy": verdict.accuracy,
        "ci_low": low,
        "ci_high": high,
        "gain": verdict.gain,
        "gain_ci_low": gain_low,
        "gain_ci_high": gain_high,
        "tokens_to_threshold": verdict.tokens_to_threshold,
        "seeds_reached": verdict.reached,
        "seed_std": verdict.seed_std,
        "worst_drop": verdict.worst_drop,
        "kl": verdict.kl,
        "tokens": verdict.tokens,
        "seconds": verdict.seconds,
        "seeds_timed": verdict.timed,
        "peak_mem_gb": verdict.peak_mem_gb,
    }


def _cells(verdict: Verdict, seeds: int) -> list[str]:
    if verdict.finished == 0:
        return [verdict.algorithm, "failed", *[_NOTHING] * (len(_HEAD) - 2)]
    failed = seeds - verdict.finished
    trained = verdict.algorithm != BASE
    return [
        verdict.algorithm + (f" ({failed} of {seeds} seeds failed)" if failed else ""),
        _with_interval(verdict.accuracy, verdict.interval, ".1f"),
        _with_interval(verdict.gain, verdict.gain_interval, "+.1f"),
        _reached(verdict) if trained else _NOTHING,
        _points(verdict.seed_std, ".1f"),
        _points(verdict.worst_drop, ".1f"),
        _number(verdict.kl, ".2f") if trained else _NOTHING,
        _number(verdict.seconds, ",.0f") + _of(verdict.timed, verdict.finished),
        _number(verdict.peak_mem_gb, ".2f"),
        _number(verdict.tokens, ",.0f") if trained else _NOTHING,
    ]


def _reached(verdict: Verdict) -> str:
    if verdict.tokens_to_threshold is None:
        return "never"
    return f"{verdict.tokens_to_threshold:,.0f}{_of(verdict.reached, verdict.finished)}"


def _of(some: int, all_of: int) -> str:
    """How many seeds a number speaks for, where it is not all or none."""
    return f" ({some} of {all_of} seeds)" if 0 < some < all_of else ""


def _with_interval(share: float | None, interval: Interval | None, form: str) -> str:
    if interval is None:
        return _points(share, form)
    return f"{_points(share, form)} [{_points(interval[0], form)}, {_points(interval[1], form)}]"


def _points(share: float | None, form: str) -> str:
    return _number(None if share is None else 100 * share, form)


def _number(value: float | None, form: str) -> str:
    return _NOTHING if value is None else f"{value:{form}}".replace("-", "−")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
