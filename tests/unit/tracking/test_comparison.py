"""The run of a bakeoff, and what a stage cost according to the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlpipe import lineage
from rlpipe.config import Params
from rlpipe.errors import TrackingError
from rlpipe.tracking import Cost, bakeoff_run, costs, pipeline_run, stage_run

Runs = Callable[..., list[Any]]


def recorded(project: Path) -> None:
    """Let dvc.lock record the outputs of `sft` that stand."""
    outs = lineage.file_outputs(project, "sft")
    lines = "".join(f"    - {{path: {path}, md5: {md5}}}\n" for path, md5 in outs.items())
    (project / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n  sft:\n    outs:\n{lines}")


def test_a_bakeoff_is_the_parent_of_its_pipelines(project: Path, params: Params, runs: Runs) -> None:
    table = project / "table.md"
    table.write_text("# Bakeoff")
    with bakeoff_run(project, params, "mine", {}, {"algos": "grpo,dpo"}) as parent:
        with pipeline_run(project, params, name="mine-seed1", tags=parent.child_tags):
            pass
        parent.compared({"bakeoff/grpo/accuracy": 0.5}, [table], failed=False)
    (run,), (child,) = runs(bakeoff="mine"), runs(pipeline="mine-seed1")
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert run.data.metrics == {"bakeoff/grpo/accuracy": 0.5}
    assert run.data.params == {"algos": "grpo,dpo"}
    assert run.info.status == "FINISHED"
    assert [path.name for path in Path(run.info.artifact_uri.removeprefix("file://")).iterdir()] == ["table.md"]


def test_one_that_failed_in_part_says_so(project: Path, params: Params, runs: Runs) -> None:
    with bakeoff_run(project, params, "mine", {}, {}) as parent:
        parent.compared({}, [], failed=True)
    assert runs(bakeoff="mine")[0].info.status == "FAILED"


def test_a_metric_that_the_table_lacks_is_refused(project: Path, params: Params) -> None:
    with pytest.raises(TrackingError, match="bakeoff/grpo/luck"), bakeoff_run(project, params, "b", {}, {}) as parent:
        parent.compared({"bakeoff/grpo/luck": 1.0}, [], failed=False)


def test_the_cost_is_every_phase_of_every_step(project: Path, params: Params) -> None:
    with stage_run(project, "sft", params, environ={}) as tracker:
        tracker.metrics(0, {"time/rollout_s": 1.0, "time/train_s": 2.0, "perf/peak_mem_gb": 0.5})
        tracker.metrics(1, {"time/train_s": 4.0, "perf/peak_mem_gb": 0.75})
    assert costs(project, params, {"sft": 2}) == {"sft": Cost(None, None)}  # dvc.lock records nothing yet
    recorded(project)
    assert costs(project, params, {"sft": 2}) == {"sft": Cost(7.0, 0.75)}


def test_the_cost_of_a_resumed_run_is_not_known(project: Path, params: Params) -> None:
    with stage_run(project, "sft", params, environ={}) as tracker:
        tracker.metrics(1, {"time/train_s": 4.0, "perf/peak_mem_gb": 0.75})
    recorded(project)
    assert costs(project, params, {"sft": 2}) == {"sft": Cost(None, 0.75)}
