"""The report's pictures: as PNG for other pages, and as SVG that follows the page's light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlpipe.stages.reporting.findings import Curve, Findings
from rlpipe.stages.reporting.watched import Rises, WatchPage

# Grey for SFT, then colours after Okabe and Ito, told apart with any colour vision; markers say the same.
COLOURS = ("#6b7280", "#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9")
MARKERS = ("s", "o", "^", "D", "v", "P", "X")
STROKES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1, 1.5)))  # for policies whose colours repeat
INK, FAINT = "#1f2328", "#d0d7de"
_PANELS = 4  # in a row
_LEGEND_ROWS = 16

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same pixels on every machine
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def accuracy(findings: Findings) -> Figure:
    """pass@1 of every model with its 95% interval, over SFT's interval as a band."""
    models = findings.models
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 0.9 + 0.42 * len(models)), layout="constrained")
        axes = figure.subplots()
        base = findings.base.measured
        axes.axvspan(100 * base["ci_low"], 100 * base["ci_high"], color=COLOURS[0], alpha=0.15, linewidth=0)
        for row, model in enumerate(models):
            low, high = 100 * model.measured["ci_low"], 100 * model.measured["ci_high"]
            shade, marker = COLOURS[model.colour], MARKERS[model.colour]
            axes.plot([low, high], [row, row], color=shade, linewidth=2.2, solid_capstyle="round")
            axes.plot(100 * model.pass_at_1, row, color=shade, marker=marker, markersize=7)
            axes.annotate(f"{100 * model.pass_at_1:.1f}", (high, row), (8, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(models)), [model.name for model in models])
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_xlim(0, 104)
        axes.set_xlabel(f"solved of {base['n']:g} held-out tasks, % (one sample a task); bars: 95% intervals")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
    return figure


def reward_vs_kl(findings: Findings) -> Figure:
    """Above, all policies by the held-out reward; below, each by the reward it is trained on."""
    online = [curve for curve in findings.curves if curve.reward]
    heights = [4.2] + [1.8 * -(-len(online) // _PANELS)] * bool(online)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), height_ratios=heights, squeeze=False)[:, 0]
        _shared(parts[0].subplots(), findings)
        for part in parts[1:]:
            _separate(part.subplots(-(-len(online) // _PANELS), _PANELS, squeeze=False).flat, online)
    return figure


def hacking(page: WatchPage) -> Figure:
    """Each policy's rise of the reward it is trained on, and of the held-out one, in spreads along KL."""
    lines = -(-len(page.rises) // _PANELS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 2.7 * lines), layout="constrained")
        panels = figure.subplots(lines, _PANELS, squeeze=False).flat
        for place, (panel, shown) in enumerate(zip_longest(panels, page.rises)):
            if shown is None:
                panel.remove()
                continue
            watched, rises = shown
            _rises(panel, watched.colour, rises)
            panel.set_title(watched.name, fontsize=9)
            panel.tick_params(labelsize=8)
            panel.set_xlabel("KL to SFT, nats a response", fontsize=8)
            if place % _PANELS == 0:
                panel.set_ylabel("rise since the first window, spreads", fontsize=8)
    return figure


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Each value's mean with its neighbours, `window` of them on either side, fewer at the ends."""
    parts = [values[max(0, i - window) : i + window + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def window(measured: int) -> int:
    """How many neighbours on either side the drawn line averages over."""
    return measured // 12


def write_png(figure: Figure, path: Path, dpi: int = 160) -> None:
    """The same bytes for the same figure."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=dpi, facecolor="white", metadata={"Software": None})


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page that sets --ink, --faint and --c0 to --c6.

    The same bytes for the same figure; `name` keeps its ids apart from those of the page's other figures.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    variables = {INK: "ink", FAINT: "faint"} | {shade: f"c{place}" for place, shade in enumerate(COLOURS)}
    for shade, variable in variables.items():
        svg = svg.replace(shade, f"var(--{variable})")
    return "\n".join(line.rstrip() for line in svg.splitlines())


def _shared(axes: Axes, findings: Findings) -> None:
    for place, curve in enumerate(findings.curves):
        _draw(axes, curve, curve.gold, STROKES[place // (len(COLOURS) - 1) % len(STROKES)])
    axes.set_title("The held-out reward")
    axes.set_xlabel("KL to SFT, nats a response")
    axes.set_ylabel(f"{findings.watch.heldout}, mean over samples")
    if findings.curves:
        columns = -(-len(findings.curves) // _LEGEND_ROWS)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns, fontsize=9, handlelength=3.2)


def _separate(panels: Iterable[Axes], online: Sequence[Curve]) -> None:
    for place, (panel, curve) in enumerate(zip_longest(panels, online)):
        if curve is None:
            panel.remove()
            continue
        _draw(panel, curve, curve.trained_on, "-")
        panel.set_title(curve.name, fontsize=9)
        panel.set_ylabel(curve.reward, fontsize=8)
        panel.tick_params(labelsize=8)
        if place + _PANELS >= len(online):
            panel.set_xlabel("KL to SFT, nats a response", fontsize=8)


def _rises(axes: Axes, colour: int, rises: Rises) -> None:
    """Solid: trained on. Dashed: held out. Crosses: a sentinel tripped."""
    shade, crosses = COLOURS[colour], list(rises.tripped)
    axes.axhline(0, color=FAINT, linewidth=1.0)
    for label, values, stroke in (("trained on", rises.trained, "-"), ("held out", rises.heldout, STROKES[1])):
        axes.plot(
            rises.kl, values, color=shade, linestyle=stroke, linewidth=1.6, marker="x", markevery=crosses,
            markersize=6, label=label,
        )  # fmt: skip
    axes.legend(fontsize=7.5, handlelength=2.6, loc="best")


def _draw(axes: Axes, curve: Curve, reward: Sequence[float], stroke: Any) -> None:
    """Dots: single steps. Line: the running mean of both axes. Marker: where training ended."""
    shade, marker, width = COLOURS[curve.colour], MARKERS[curve.colour], window(len(reward))
    axes.plot(curve.kl, reward, ".", color=shade, alpha=0.3, markersize=5, markeredgewidth=0)
    kl, line = smooth(curve.kl, width), smooth(reward, width)
    axes.plot(
        kl, line, color=shade, linestyle=stroke, linewidth=1.8, marker=marker, markevery=[-1], markersize=7,
        label=curve.name,
    )  # fmt: skip
