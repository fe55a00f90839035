"""What the reward hacking watch found of each policy, for the report."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpipe.config.schema import Sentinels
from rlpipe.errors import DataError
from rlpipe.stages.base import Stage

# In the order of the table; the words stand in its head and in the sentences about what tripped.
WORDS = {
    "hacking_gap": "gap to the held-out reward",
    "heldout_drop": "fall of the held-out reward",
    "length": "length",
    "repetition": "repetition",
    "format_tricks": "format tricks",
    "dominance": "one component's dominance",
    "canary_pass_rate": "canaries that pass",
}
_KL, _TRAINED, _HELDOUT = "kl/ref_seq_sum", "watch/trained_rise", "watch/heldout_rise"
_SHOWN = {
    "hacking_gap": "{:.2f} spreads",
    "heldout_drop": "{:.2f} spreads",
    "length": "{:.1f} tokens",
    "repetition": "{:.1%}",
    "format_tricks": "{:.1%}",
    "dominance": "{:.1%}",
    "canary_pass_rate": "{:.1%}",
}
_LIMITS = {
    "hacking_gap": "above {:.1f} spreads",
    "heldout_drop": "above {:.1f} spreads",
    "length": "{:g} × its start, or 1/{:g}",
    "repetition": "{:.0%} above its start",
    "format_tricks": "{:.0%} above its start",
    "dominance": "a share grown by {:.0%}",
    "canary_pass_rate": "more than {:.0%}",
}


@dataclass(frozen=True)
class Tripped:
    """A sentinel that tripped: when, at which reading, how far from SFT (nats a response)."""

    name: str
    step: int
    value: str
    limit: str
    kl: str
    action: str

    @property
    def words(self) -> str:
        return WORDS[self.name]


@dataclass(frozen=True)
class Reading:
    """A cell of the table: the reading when its first window was full and at the end; the step at which it tripped."""

    start: str
    end: str
    tripped_at: int | None

    @property
    def words(self) -> str:
        return self.end if self.start == self.end else f"{self.start} → {self.end}"


@dataclass(frozen=True)
class Share:
    """A component's share of the variance of the reward trained on, at first and at the end."""

    component: str
    start: float
    end: float


@dataclass(frozen=True)
class Rises:
    """By how many spreads the reward trained on and the held-out one rose, along KL; `tripped` indexes the steps at
    which a sentinel did. All are means over the watch's window.
    """

    name: str
    kl: tuple[float, ...]
    trained: tuple[float, ...]
    heldout: tuple[float, ...]
    tripped: tuple[int, ...]


@dataclass(frozen=True)
class Watched:
    """One policy run as the watch saw it; `cells` by the names of WORDS, None where the run has no such reading.

    `kept_step` is the step whose weights were saved, None for those after the last step.
    """

    name: str
    colour: int
    measured: int
    cells: Mapping[str, Reading | None]
    tripped: tuple[Tripped, ...]
    stopped_at: int | None
    kept_step: int | None
    shares: tuple[Share, ...]
    passing: tuple[str, ...]
    rises: Rises | None


@dataclass(frozen=True)
class WatchPage:
    """The section of the report: what was held out, the limits in words by reading, the runs."""

    heldout: str
    window: int
    limits: Mapping[str, str]
    runs: tuple[Watched, ...]

    @property
    def tripped(self) -> tuple[Watched, ...]:
        """The runs of which a sentinel tripped."""
        return tuple(run for run in self.runs if run.tripped)

    @property
    def rises(self) -> tuple[tuple[Watched, Rises], ...]:
        """The runs that have two rewards to compare."""
        return tuple((run, run.rises) for run in self.runs if run.rises is not None)


def watch_page(stage: Stage, colours: Mapping[str, int], heldout: str) -> WatchPage:
    """Raises: DataError if an input is missing."""
    settings = stage.params.watch
    return WatchPage(
        heldout=heldout,
        window=settings.window,
        limits=_limits(settings.sentinels),
        runs=tuple(_watched(stage, name, colours[name], settings.window) for name in stage.params.policy),
    )


def _limits(sentinels: Sentinels) -> dict[str, str]:
    limits = {name: getattr(sentinels, name) for name in WORDS}
    return {name: _limit(name, s.limit) if s.action != "off" else "off" for name, s in limits.items()}


def _limit(name: str, limit: float) -> str:
    return _LIMITS[name].format(limit, limit)


def _watched(stage: Stage, name: str, colour: int, window: int) -> Watched:
    path = stage.path(f"metrics/policy/{name}.json")
    found = _found(path)
    readings: Mapping[str, Any] = found["readings"]
    tripped = sorted(
        (
            Tripped(
                reading,
                read["tripped"]["step"],
                _SHOWN[reading].format(read["tripped"]["value"]),
                _limit(reading, read["limit"]),
                f"{round(read['tripped']['kl'], 2) + 0.0:g}",  # no -0
                read["action"],
            )
            for reading, read in readings.items()
            if read["tripped"] is not None
        ),
        key=lambda trip: (trip.step, list(WORDS).index(trip.name)),
    )
    table = stage.path(f"plots/policy/{name}.csv")
    return Watched(
        name=name,
        colour=colour,
        measured=found["measured"],
        cells={reading: _cell(reading, readings.get(reading)) for reading in WORDS},
        tripped=tuple(tripped),
        stopped_at=found["stopped_at_step"],
        kept_step=found["kept_step"],
        shares=tuple(Share(part, share["start"], share["end"]) for part, share in found["shares"].items()),
        passing=tuple(found["canaries_passing"]),
        rises=_rises(table, name, window, {trip.step for trip in tripped}),
    )


def _cell(name: str, read: Mapping[str, Any] | None) -> Reading | None:
    if read is None:
        return None
    start, end = (_SHOWN[name].format(read[at] + 0.0).split(" ")[0] for at in ("start", "end"))
    return Reading(start, end, None if read["tripped"] is None else read["tripped"]["step"])


def _rises(path: Path, name: str, window: int, tripped: set[int]) -> Rises | None:
    """None where there are not two rewards, or they are the same."""
    if not path.exists():
        raise DataError(f"{path}: no such file. Run the stage that writes it: `dvc repro` does.")
    with path.open(encoding="utf-8", newline="") as file:
        measured = [row for row in csv.DictReader(file) if row.get(_KL)]
    kl = [float(row[_KL]) for row in measured]
    rows = [(at, row) for at, row in enumerate(measured) if row.get(_TRAINED) and row.get(_HELDOUT)]
    trained, heldout = (tuple(float(row[key]) for _, row in rows) for key in (_TRAINED, _HELDOUT))
    if trained == heldout:
        return None
    return Rises(
        name=name,
        kl=tuple(statistics.fmean(kl[max(0, at + 1 - window) : at + 1]) for at, _ in rows),
        trained=trained,
        heldout=heldout,
        tripped=tuple(place for place, (_, row) in enumerate(rows) if int(row["step"]) in tripped),
    )


def _found(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(f"{path}: no such file. Run the stage that writes it: `dvc repro` does.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["watch"]
    return found
