"""Without a pipeline a stage's store opens in a process beside, which outlives the stage in no case."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import has_ended, wait_until

Search = Callable[..., list[Any]]
ROOT = Path(__file__).parents[3]

STAGE = """
import os, sys
from pathlib import Path
from rlpipe.config import load
from rlpipe.errors import TrackingError
from rlpipe.tracking import stage_run
from rlpipe.tracking.beside import beside
from rlpipe.tracking.stage import STORE_VARIABLE
root = Path()
with beside(root):
    at = os.environ[STORE_VARIABLE]
    [process] = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    print(at, process, flush=True)
    try:
        with stage_run(root, "sft", load(root)) as tracker:
            tracker.metrics(0, {"sft/loss": 1.0})
            if sys.argv[1:] == ["wait"]:
                sys.stdin.read()
            print("computed")
    except TrackingError as error:
        print(error)
print("mlflow" in sys.modules, STORE_VARIABLE in os.environ)
"""


@pytest.fixture
def bare(project: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the stage in the project, which has the checkout's parameters."""
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", STAGE, *arguments]
        return subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    return start


@pytest.mark.slow
def test_a_bare_stage_is_written_and_imports_no_mlflow(bare: Callable[..., Any], runs: Search) -> None:
    out, _ = bare().communicate(timeout=120)
    opened, computed, last = out.splitlines()
    at, process = opened.split()
    assert (computed, last) == ("computed", "False False")
    assert has_ended(int(process))
    assert not Path(at).parent.exists()
    (run,) = runs(stage="sft")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"sft/loss": 1.0})


@pytest.mark.slow
def test_a_store_that_does_not_open_is_refused_as_ever_and_before_any_compute(
    bare: Callable[..., Any], project: Path
) -> None:
    (project / "mlflow.db").write_text("no database, whatever its name\n" * 100)
    out, _ = bare().communicate(timeout=120)
    assert "computed" not in out
    error = out.splitlines()[1]
    assert error.startswith("tracking.uri=sqlite:///mlflow.db: the MLflow store does not open: ")
    assert "not a database" in error
    assert error.count("does not open") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, "KILLED"), (signal.SIGKILL, "RUNNING")])
def test_a_stage_that_is_stopped_or_killed_leaves_no_process_and_no_folder(
    bare: Callable[..., Any], runs: Search, number: signal.Signals, status: str
) -> None:
    stage = bare("wait")
    assert stage.stdout is not None
    at, process = stage.stdout.readline().split()
    wait_until(lambda: [run.data.metrics for run in runs(stage="sft")] == [{"sft/loss": 1.0}])
    stage.send_signal(number)
    stage.wait(60)
    wait_until(lambda: has_ended(int(process)) and not Path(at).parent.exists())
    assert runs(stage="sft")[0].info.status == status
    stage.communicate()
