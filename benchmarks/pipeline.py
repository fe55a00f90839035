"""How near a finished pipeline came to the shortest time that its stages allow.

    python -m benchmarks.pipeline                        # the newest finished run of this checkout's store
    python -m benchmarks.pipeline --run ID --wall 412    # another run; the seconds that `time make run` said

A stage's own time is that of its MLflow run: from when its parameters are checked and its modules imported until its
outputs are written and hashed. Starting Python, DVC and the imports are what is around it. No schedule is shorter than
the critical path through dvc.yaml, nor than all stages' own time over the slots.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from flows import graph
from rlpipe.config import load
from rlpipe.tracking.pipeline import seconds_key
from rlpipe.tracking.run import PARENT, STAGE
from rlpipe.tracking.store import Store, open_store

_MILLISECONDS = 1000


@dataclass(frozen=True)
class Finished:
    """One finished pipeline, in seconds: its wall time, each stage's own time, and that of the task around it."""

    wall: float
    own: Mapping[str, float]
    task: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """What a pipeline took (`wall`) and what it could not go below, in seconds; `path` is the critical one."""

    wall: float
    total: float
    path: tuple[str, ...]
    critical: float
    slots: int

    @property
    def bound(self) -> float:
        """The shortest time that stages of these own times can take in these slots, starting for nothing."""
        return max(self.critical, self.total / self.slots)


def measured(upstream: Mapping[str, Set[str]], finished: Finished, slots: int) -> Measured:
    """Compare a pipeline with its bounds.

    Args:
        upstream: stage -> what it needs, in topological order. A stage that has no own time did not run.
    """
    longest: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for stage, needs in upstream.items():
        last = max(sorted(needs), key=lambda need: longest[need], default=None)
        before[stage] = last
        longest[stage] = finished.own.get(stage, 0.0) + (0.0 if last is None else longest[last])
    path: list[str] = []
    at: str | None = max(longest, key=lambda stage: longest[stage])
    while at is not None:
        path.insert(0, at)
        at = before[at]
    ran = tuple(stage for stage in path if stage in finished.own)
    return Measured(finished.wall, sum(finished.own.values()), ran, max(longest.values()), slots)


def read(store: Store, stages: Set[str], run_id: str | None) -> Finished:
    """A finished pipeline from its MLflow run and those of its stages; the newest when `run_id` is None."""
    client = store.client
    if run_id is None:
        filters = "attributes.status = 'FINISHED' and tags.`rlpipe.pipeline` LIKE '%'"
        newest = client.search_runs([store.experiment_id], filters, max_results=1, order_by=["start_time DESC"])
        if not newest:
            raise SystemExit("no pipeline has finished in this store; say `make run` first.")
        run_id = newest[0].info.run_id
    parent = client.get_run(run_id)
    filters = f"attributes.status = 'FINISHED' and tags.`{PARENT}` = '{run_id}'"
    children = [run for run in client.search_runs([store.experiment_id], filters) if STAGE in run.data.tags]
    seconds = parent.data.metrics
    return Finished(
        wall=(parent.info.end_time - parent.info.start_time) / _MILLISECONDS,
        own={run.data.tags[STAGE]: (run.info.end_time - run.info.start_time) / _MILLISECONDS for run in children},
        task={stage: seconds[seconds_key(stage)] for stage in stages if seconds_key(stage) in seconds},
    )


def shown(result: Measured, finished: Finished) -> str:
    """A line for each stage that ran, then the pipeline's."""
    lines = [f"{'stage':<28}{'own, s':>9}{'around it, s':>14}"]
    for stage, own in finished.own.items():
        around = f"{finished.task[stage] - own:14.1f}" if stage in finished.task else f"{'?':>14}"
        lines.append(f"{stage:<28}{own:9.1f}{around}")
    shared = result.total / result.slots
    return "\n".join(
        [
            *lines,
            "",
            f"all stages' own time   {result.total:8.1f} s in {result.slots} slots: {shared:.1f} s",
            f"critical path          {result.critical:8.1f} s: {' > '.join(result.path)}",
            f"wall time              {result.wall:8.1f} s",
            f"wall over the bound    {result.wall / result.bound:8.2f}   (the larger of the first two)",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="the MLflow id of a pipeline's run; the newest finished one if left out")
    parser.add_argument("--wall", type=float, help="seconds from outside, with what comes before and after the run")
    parser.add_argument("--store", help="another store than tracking.uri, such as sqlite:////folder/mlflow.db")
    asked = parser.parse_args()
    root, params = Path.cwd(), load(Path())
    if asked.store is not None:
        params = params.model_copy(update={"tracking": params.tracking.model_copy(update={"uri": asked.store})})
    upstream = graph.read(root).upstream
    finished = read(open_store(root, params), upstream.keys(), asked.run)
    if asked.wall is not None:
        finished = Finished(asked.wall, finished.own, finished.task)
    print(shown(measured(upstream, finished, params.runtime.slots), finished))


if __name__ == "__main__":
    main()
