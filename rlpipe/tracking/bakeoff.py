"""The run of one bakeoff: the parent of its pipelines' runs, with the comparison that they make together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rlpipe.config import Params
from rlpipe.tracking import keys
from rlpipe.tracking.run import PARENT, Run, maker, open_run
from rlpipe.tracking.store import Store, open_store
from rlpipe.tracking.writer import StoreWriter
from rlpipe.types import Metrics

_PEAK = "perf/peak_mem_gb"


@dataclass(frozen=True)
class Cost:
    """What the steps of a stage took; None where MLflow does not know, or not of every step."""

    seconds: float | None
    peak_mem_gb: float | None


class BakeoffRun:
    """What the flow tells the run of a bakeoff."""

    def __init__(self, run: Run, store: Store) -> None:
        self._run = run
        self._store = store

    @property
    def child_tags(self) -> dict[str, str]:
        """The tags that make a run a child of this one."""
        return {PARENT: self._run.id}

    def compared(self, metrics: Metrics, files: Iterable[Path], *, failed: bool) -> None:
        """Log the comparison: its metrics, its tables and pictures; a bakeoff that `failed` in part says so.

        Raises: TrackingError for a name that `keys.KEYS` lacks. A store that fails is warned of.
        """
        for name in metrics:
            keys.check(name)
        client, run_id = self._store.client, self._run.id
        for name, value in metrics.items():
            self._run.attempt(name, partial(client.log_metric, run_id, name, value))
        for path in files:
            self._run.attempt(path.name, partial(client.log_artifact, run_id, str(path)))
        self._run.failed |= failed


@contextmanager
def bakeoff_run(
    root: Path, params: Params, name: str, tags: Mapping[str, str], logged: Mapping[str, str]
) -> Iterator[BakeoffRun]:
    """The run of one bakeoff.

    Args:
        logged: what it compares, as parameters.
    Raises: TrackingError if the store does not open.
    """
    store = open_store(root, params)
    with open_run(StoreWriter(store), root, params, name, {"rlpipe.bakeoff": name, **tags}, logged) as run:
        yield BakeoffRun(run, store)


def costs(root: Path, params: Params, steps: Mapping[str, int]) -> dict[str, Cost]:
    """What stages cost whose outputs stand in the workspace `root`, whenever and wherever they were made.

    Args:
        steps: stage address -> how many steps it took.
    Raises: TrackingError if the store does not open.
    """
    store = open_store(root, params)
    return {address: _cost(store, root, address, count) for address, count in steps.items()}


def _cost(store: Store, root: Path, address: str, steps: int) -> Cost:
    made_by = maker(store, root, address)
    if made_by is None:
        return Cost(None, None)
    measured: Metrics = made_by.data.metrics
    seconds, timed = 0.0, set()
    for name in measured:
        if name.startswith("time/"):
            for metric in store.client.get_metric_history(made_by.info.run_id, name):
                seconds += metric.value
                timed.add(metric.step)
    # A run that took over from a killed one has timed only its own steps: what it knows is not the cost.
    return Cost(seconds if len(timed) == steps else None, measured.get(_PEAK))
