"""Cancelled, killed, out of memory, two at once: what becomes of the stages that were running."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlpipe.errors import StageError
from tests.flows.tiny_project import STAGES, create, prefect_server, say, traced
from tests.processes import has_ended, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return create(tmp_path / "project")


@contextmanager
def flow_process(
    root: Path, *, environ: dict[str, str], grace: float = 20, deaf: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """The flow on `root` in a process of its own, `deaf` to SIGINT as a script's background job is."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.flows.tiny_flow", str(root), str(grace)],
        cwd=REPOSITORY,
        env={**os.environ, **environ},
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if deaf else None,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def pid_of_stage(root: Path) -> int:
    """The process of the stage that was told to stay, as soon as it runs."""
    path = root / "pid.txt"
    wait_until(lambda: path.exists() and path.read_text() != "", 120)
    return int(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "deaf"),
    [(signal.SIGINT, False), (signal.SIGTERM, True)],
    ids=["ctrl-c", "cancelled-in-background"],
)
def test_stopping_the_flow_interrupts_its_stage(project: Path, number: signal.Signals, deaf: bool) -> None:
    say(project, left="hang")
    with flow_process(project, environ={"PREFECT_API_URL": prefect_server()}, deaf=deaf) as process:
        stage = pid_of_stage(project)
        process.send_signal(number)
        assert process.wait(60) != 0
    assert has_ended(stage)
    ran = traced(project)
    assert "interrupted" in ran["left"]  # it was asked to end, not killed
    assert "bottom" not in ran


@pytest.mark.slow
def test_a_stage_that_ignores_the_interrupt_is_killed_after_the_grace_period(project: Path) -> None:
    say(project, left="deaf")
    with flow_process(project, environ={"PREFECT_API_URL": prefect_server()}, grace=1) as process:
        stage = pid_of_stage(project)
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    assert 1 < time.monotonic() - stopped < 30  # the stage itself would have stayed for 60 s
    assert has_ended(stage)
    assert set(traced(project)["left"]) == {"start"}


@pytest.mark.slow
def test_a_stage_whose_flow_is_killed_ends_well_and_is_recorded(project: Path) -> None:
    say(project, left="slow")
    with flow_process(project, environ={"PREFECT_API_URL": prefect_server()}) as process:
        pid_of_stage(project)
        process.kill()
        process.wait()
        wait_until(lambda: "end left" in (project / "trace.txt").read_text(), 60)
    wait_until(lambda: "left:" in (project / "dvc.lock").read_text(), 60)
    wait_until(lambda: "left" not in _stale(project), 60)


def _stale(root: Path) -> set[str]:
    """What DVC finds changed: every stage while one of them, whose flow is gone as well, still has DVC's lock."""
    from flows import graph

    try:
        return set(graph.stale(root))
    except StageError:
        return set(STAGES)


def test_a_stage_killed_by_the_system_says_so(project: Path) -> None:
    prefect_server()
    from tests.flows.tiny_flow import tiny

    say(project, top="oom")
    state = tiny(str(project), return_state=True)
    assert state.is_failed()
    assert "1 Failed, 3 Skipped, 1 Ran" in (state.message or "")  # also what is two steps below `top`
    assert "top: killed by SIGKILL: the machine may have run out of memory." in (state.message or "")


@pytest.mark.slow
def test_two_runs_at_once_create_one_prefect_database(tmp_path: Path) -> None:
    """Each brings a temporary server, both on the same database, which neither finds there."""
    home = tmp_path / "prefect"
    roots = [create(tmp_path / name) for name in ("one", "two")]
    environ = {"PREFECT_HOME": str(home)}
    with flow_process(roots[0], environ=environ) as one, flow_process(roots[1], environ=environ) as two:
        assert [one.wait(300), two.wait(300)] == [0, 0]
    for root in roots:
        assert set(traced(root)) == set(STAGES)
    with sqlite3.connect(home / "prefect.db") as database:
        recorded = database.execute("select state_name, count(*) from task_run group by 1").fetchall()
        flow_runs = database.execute("select state_name, count(*) from flow_run group by 1").fetchall()
    assert flow_runs == [("Completed", 2)]
    assert recorded == [("Ran", 2 * len(STAGES))]
