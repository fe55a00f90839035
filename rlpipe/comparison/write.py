"""Put a comparison into a folder."""

from __future__ import annotations

from pathlib import Path

from rlpipe.comparison import page, plots
from rlpipe.comparison.collect import Trials
from rlpipe.comparison.statistics import verdicts
from rlpipe.stages.reporting.plots import write_png
from rlpipe.types import Metrics


def write(trials: Trials, threshold: float, folder: Path) -> tuple[Metrics, list[Path]]:
    """Write table.md, table.csv, seeds.csv, bakeoff.png and frontier.png.

    Returns: the numbers by the names of `tracking.keys`, and the files.
    """
    found = verdicts(trials, threshold)
    texts = {
        "table.md": page.markdown(trials, found, threshold),
        "table.csv": page.table(found),
        "seeds.csv": page.seeds_table(trials),
    }
    figures = {"bakeoff.png": plots.bakeoff(trials, found, threshold), "frontier.png": plots.frontier(trials)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, figure in figures.items():
        write_png(figure, folder / name, dpi=140)
    return page.metrics(found), [folder / name for name in (*texts, *figures)]
