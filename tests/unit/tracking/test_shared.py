"""A pipeline's stages write by its open store; whatever becomes of the pipeline, nothing that they write is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import pytest

from rlpipe import lineage
from rlpipe.config import Params
from rlpipe.errors import TrackingError
from rlpipe.tracking import pipeline_run, stage_run
from rlpipe.tracking.stage import STORE_VARIABLE
from rlpipe.tracking.store import open_store

Search = Callable[..., list[Any]]
ROOT = Path(__file__).parents[3]

# A stage in a process of its own, with everything that a stage may write.
A_STAGE = """
import sys
from pathlib import Path
from rlpipe.config import load
from rlpipe.tracking import stage_run
root = Path(sys.argv[1])
with stage_run(root, "sft", load(Path(sys.argv[2]))) as tracker:
    tracker.metrics(0, {"sft/loss": 2.0})
    tracker.metrics(1, {"sft/loss": 1.0})
    tracker.dataset("demonstrations", root / "models/sft")
    asked = [{"role": "user", "content": "Is 7 right?"}]
    tracker.trace("judge", 1.5, inputs=asked, outputs="1", attributes={"attempt": 1}, ok=True)
print("mlflow" in sys.modules)
"""


def test_a_stage_of_a_pipeline_writes_all_and_imports_no_mlflow(project: Path, params: Params, runs: Search) -> None:
    with pipeline_run(project, params, "checkout", {}) as pipeline:
        command = [sys.executable, "-c", A_STAGE, str(project), str(ROOT)]
        environ = {**os.environ, **pipeline.environ}
        done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    (run,) = runs(stage="sft")
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "17")
    assert run.data.metrics == {"sft/loss": 1.0}
    assert run.data.tags["rlpipe.output_hash"] == lineage.outputs_hash(lineage.file_outputs(project, "sft"))
    assert run.data.tags["rlpipe.pid"] != str(os.getpid()), "the stage's own, by which a killed one is told"
    assert [used.dataset.name for used in run.inputs.dataset_inputs] == ["demonstrations"]
    store = open_store(project, params)
    [trace] = store.client.search_traces(locations=[store.experiment_id], run_id=run.info.run_id)
    [span] = trace.data.spans
    assert (span.name, span.outputs, span.get_attribute("attempt")) == ("judge", "1", "1")
    assert span.end_time_ns - span.start_time_ns == pytest.approx(1.5e9, rel=0.01)


def test_a_stage_goes_on_by_itself_where_the_pipeline_is_gone(project: Path, params: Params, runs: Search) -> None:
    pipeline = pipeline_run(project, params, "checkout", {})
    environ = pipeline.__enter__().environ
    with stage_run(project, "sft", params, environ=environ) as tracker:
        tracker.metrics(0, {"sft/loss": 2.0})
        pipeline.__exit__(None, None, None)
        assert not Path(environ[STORE_VARIABLE]).exists()
        tracker.metrics(1, {"sft/loss": 1.0})
    (run,) = runs(stage="sft")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"sft/loss": 1.0})
    assert "rlpipe.metrics_lost" not in run.data.tags


def test_a_pipeline_that_never_answers_is_waited_for_so_long_and_no_longer(
    project: Path, params: Params, runs: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpipe.tracking.shared.PATIENCE_SECONDS", 0.1)
    with (
        tempfile.TemporaryDirectory() as folder,
        Listener(f"{folder}/silent", family="AF_UNIX"),
        stage_run(project, "sft", params, environ={STORE_VARIABLE: f"{folder}/silent"}),
    ):
        pass
    assert runs(stage="sft")[0].info.status == "FINISHED"


def test_what_the_store_refuses_is_refused_before_any_compute(project: Path, params: Params, runs: Search) -> None:
    computed = []
    with pipeline_run(project, params, "checkout", {}) as pipeline:
        store = open_store(project, params)
        store.client.delete_experiment(store.experiment_id)
        with (
            pytest.raises(TrackingError, match=r"tracking.uri=sqlite:///mlflow.db: .*must be in the 'active' state"),
            stage_run(project, "sft", params, environ=pipeline.environ),
        ):
            computed.append(1)
        store.client.restore_experiment(store.experiment_id)
    assert not computed


def test_a_stopped_stage_of_a_pipeline_is_killed_with_its_metrics_sent(
    project: Path, params: Params, runs: Search
) -> None:
    with pipeline_run(project, params, "checkout", {}) as pipeline, pytest.raises(KeyboardInterrupt):
        _stopped(project, params, pipeline.environ)
    (run,) = runs(stage="sft")
    assert (run.info.status, run.data.metrics) == ("KILLED", {"sft/loss": 1.0})


def _stopped(project: Path, params: Params, environ: dict[str, str]) -> None:
    with stage_run(project, "sft", params, environ=environ) as tracker:
        tracker.metrics(0, {"sft/loss": 1.0})
        os.kill(os.getpid(), signal.SIGTERM)


def test_where_no_socket_can_be_had_each_stage_opens_the_store(
    project: Path, params: Params, runs: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_long = tmp_path / ("x" * 120)
    too_long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(too_long))
    with pipeline_run(project, params, "checkout", {}) as pipeline:
        assert STORE_VARIABLE not in pipeline.environ
        with stage_run(project, "sft", params, environ=pipeline.environ):
            pass
    assert runs(stage="sft")[0].info.status == "FINISHED"
    assert not list(too_long.iterdir())
