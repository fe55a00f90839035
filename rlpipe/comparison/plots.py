"""The comparison as a picture: accuracy with its intervals, reward against tokens, reward against KL."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlpipe.comparison.collect import BASE, Measured, Trial, Trials
from rlpipe.comparison.statistics import WINDOW, Verdict, moving_mean
from rlpipe.stages.reporting.plots import COLOURS, INK, STYLE

# After Okabe and Ito, told apart with any colour vision; where they repeat, the stroke and the marker differ.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", INK, "#56b4e9")
_STROKES = ("-", (0, (5, 2)), (0, (1.2, 1.2)))
_MARKERS = ("o", "^", "s")
_GREY = COLOURS[0]
_LABEL_POINTS = 10.5  # the height of a label and the gap to the next
_STYLE = STYLE | {"font.size": 9}


@dataclass(frozen=True)
class _Look:
    colour: str
    stroke: Any
    marker: str


@dataclass(frozen=True)
class _Label:
    """What stands at the end (x, y) of an algorithm's curve."""

    x: float
    y: float
    text: str
    colour: str


def bakeoff(trials: Trials, verdicts: Sequence[Verdict], threshold: float) -> Figure:
    """All three panels."""
    looks = _looks(trials)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(18, max(5.4, 1.4 + 0.36 * len(verdicts))), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.1, 1.2, 1.2])
        _accuracy(left, trials, verdicts, looks)
        _learning(middle, trials, threshold, looks)
        _frontiers(right, trials, looks)
    return figure


def frontier(trials: Trials) -> Figure:
    """The reward-against-KL panel alone, large."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        _frontiers(figure.subplots(), trials, _looks(trials))
    return figure


def mean_curve(trials: Sequence[Trial]) -> list[Measured]:
    """Tokens, smoothed reward and smoothed KL, step by step the mean over seeds, as far as all of them came."""
    smoothed = [_smoothed(trial.curve) for trial in trials]
    return [
        Measured(
            tokens=statistics.fmean(point.tokens for point in points),
            reward=statistics.fmean(point.reward for point in points),
            kl=statistics.fmean(point.kl for point in points),
        )
        for points in zip(*smoothed, strict=False)  # a seed of longer responses spends its tokens in fewer steps
    ]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near those wanted and in their order, `gap` apart, within [low, high] where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    floor = low
    for i in order:
        floor = placed[i] = max(wanted[i], floor)
        floor += gap
    ceiling = high
    for i in reversed(order):
        ceiling = placed[i] = min(placed[i], ceiling)
        ceiling -= gap
    return placed


def _looks(trials: Trials) -> dict[str, _Look]:
    trained = [name for name in trials.algorithms if name != BASE]
    looks = {}
    for place, name in enumerate(trained):
        round_, colour = divmod(place, len(_COLOURS))
        again = round_ % len(_STROKES)
        looks[name] = _Look(_COLOURS[colour], _STROKES[again], _MARKERS[again])
    return {BASE: _Look(_GREY, "-", "D"), **looks}


def _smoothed(curve: Sequence[Measured]) -> list[Measured]:
    rewards, kls = moving_mean([p.reward for p in curve]), moving_mean([p.kl for p in curve])
    return [
        Measured(point.tokens, reward, kl) for point, reward, kl in zip(curve[WINDOW - 1 :], rewards, kls, strict=True)
    ]


def _accuracy(axes: Axes, trials: Trials, verdicts: Sequence[Verdict], looks: Mapping[str, _Look]) -> None:
    """Every seed as a dot, the mean as a stroke, the interval as a bar; SFT's mean as a line through all."""
    for row, verdict in enumerate(verdicts):
        look, shares = looks[verdict.algorithm], [100 * trial.accuracy for trial in trials.of(verdict.algorithm)]
        if verdict.accuracy is None:
            axes.annotate("failed", (0.5, row), xycoords=("axes fraction", "data"), va="center", color=_GREY)
            continue
        if verdict.interval is not None:
            low, high = (min(100.0, max(0.0, 100 * end)) for end in verdict.interval)
            axes.plot([low, high], [row, row], color=look.colour, linewidth=5, alpha=0.25, solid_capstyle="butt")
        axes.plot(shares, [row] * len(shares), look.marker, color=look.colour, markersize=5, alpha=0.8)
        axes.plot([100 * verdict.accuracy] * 2, [row - 0.3, row + 0.3], color=look.colour, linewidth=2)
        axes.annotate(f"{100 * verdict.accuracy:.1f}", (1.01, row), xycoords=("axes fraction", "data"), va="center")
        if verdict.algorithm == BASE:
            axes.axvline(100 * verdict.accuracy, color=_GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(verdicts)), [verdict.algorithm for verdict in verdicts])
    axes.set_ylim(len(verdicts) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_title("Final accuracy: seeds (dots), mean, 95% t-interval over seeds")
    axes.set_xlabel(f"solved of {trials.tasks:,} held-out tasks, %")


def _learning(axes: Axes, trials: Trials, threshold: float, looks: Mapping[str, _Look]) -> None:
    """A curve for each algorithm; a marker alone for those whose tokens were spent before the first step."""
    labels = []
    for name, curve in _curves(trials).items():
        look, last = looks[name], curve[-1]
        tokens, rewards = [p.tokens / 1000 for p in curve], [100 * p.reward for p in curve]
        if curve[0].tokens < last.tokens:
            axes.plot(tokens, rewards, color=look.colour, linestyle=look.stroke, linewidth=1.6)
        axes.plot(tokens[-1], rewards[-1], look.marker, color=look.colour, markersize=5)
        labels.append(_Label(tokens[-1], rewards[-1], name, look.colour))
    axes.axhline(100 * threshold, color=_GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        f"threshold {100 * threshold:g}", (0.01, 100 * threshold), (0, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", color=_GREY, fontsize=8,
    )  # fmt: skip
    axes.set_xlim(left=0)
    _label(axes, labels)
    axes.set_title("Sample efficiency: reward against tokens (a marker alone: learns from pairs)")
    axes.set_xlabel("tokens generated to learn from, thousands")
    axes.set_ylabel(f"reward on training prompts, %, moving mean of {WINDOW}")


def _frontiers(axes: Axes, trials: Trials, looks: Mapping[str, _Look]) -> None:
    labels = []
    for name, curve in _curves(trials).items():
        look = looks[name]
        kls, rewards = [p.kl for p in curve], [100 * p.reward for p in curve]
        axes.plot(
            kls, rewards, color=look.colour, linestyle=look.stroke, linewidth=1.6, marker=look.marker, markevery=[-1],
            markersize=5,
        )  # fmt: skip
        labels.append(_Label(kls[-1], rewards[-1], name, look.colour))
    _label(axes, labels)
    axes.set_title("Frontier: reward against KL, up and left is better (marker: where training ended)")
    axes.set_xlabel("KL to SFT, nats a response")
    axes.set_ylabel(f"reward on training prompts, %, moving mean of {WINDOW}")


def _curves(trials: Trials) -> dict[str, list[Measured]]:
    """Mean curves of the algorithms that have one."""
    curves = {name: mean_curve(trials.of(name)) for name in trials.algorithms}
    return {name: curve for name, curve in curves.items() if curve}


def _label(axes: Axes, labels: Sequence[_Label]) -> None:
    """Each curve's name right of the panel, level with its end where there is room, with a line to it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the panel's final size
    low, high = axes.get_ylim()
    points = axes.get_window_extent().height * 72 / figure.dpi
    gap = (high - low) * _LABEL_POINTS / points
    edge = axes.get_xlim()[1]
    axes.set_xlim(right=edge)
    axes.set_ylim(low, high)
    heights = spread([label.y for label in labels], gap, low, high)
    for label, height in zip(labels, heights, strict=True):
        arrow = {"arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "alpha": 0.5, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            label.text, (label.x, label.y), (1.02, (height - low) / (high - low)), textcoords="axes fraction",
            va="center", color=label.colour, fontsize=8.5, arrowprops=arrow, annotation_clip=False,
        )  # fmt: skip
