"""The flow on a tiny real DVC project: what runs, when, what it says; with a real Prefect server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State, TaskRun

from flows import graph
from tests.flows.tiny_flow import tiny
from tests.flows.tiny_project import STAGES, most_at_once, say, traced

pytestmark = pytest.mark.usefixtures("prefect_url")


def task_runs(state: State, count: int) -> dict[str, TaskRun]:
    """The task runs that Prefect has recorded of a flow run; it records them a moment after they end."""
    flow_run_id = _flow_run_id(state)
    for _ in range(300):
        with get_client(sync_client=True) as client:
            mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
            runs = client.read_task_runs(flow_run_filter=mine)
        if len(runs) >= count and all(run.state and run.state.is_final() for run in runs):
            break
        time.sleep(0.1)
    return {run.name: run for run in runs}


def state_names(state: State) -> dict[str, str]:
    return {name: run.state_name or "" for name, run in task_runs(state, len(STAGES)).items()}


def _flow_run_id(state: State) -> UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def test_stages_run_in_order_and_branches_side_by_side(fresh: Path) -> None:
    say(fresh, left="meet60", right="meet60")
    state = tiny(str(fresh), slots=2, return_state=True)
    assert state.is_completed(), state.message
    ran = traced(fresh)
    assert set(ran) == set(STAGES)
    for below, above in (("left", "top"), ("right", "top"), ("bottom", "left"), ("bottom", "right")):
        assert ran[below]["start"] > ran[above]["end"], f"{below} started before {above} had ended"
    assert most_at_once({name: ran[name] for name in ("left", "right")}) == 2

    runs = task_runs(state, len(STAGES))
    assert {run.state_name for run in runs.values()} == {"Ran"}
    edges = {str(entry.id) for entry in runs["bottom"].task_inputs["wait_for"]}
    assert edges == {str(runs["left"].id), str(runs["right"].id)}  # what the UI draws


def test_one_slot_means_one_at_a_time(finished: Path) -> None:
    say(finished, left="meet3", right="meet3")  # each gives the other time to come
    assert tiny(str(finished), slots=1, return_state=True).is_completed()
    ran = traced(finished)
    assert set(ran) == {"left", "right", "bottom"}
    assert most_at_once(ran) == 1


def test_a_second_run_starts_nothing(finished: Path) -> None:
    logs = finished / ".rlpipe" / "logs"
    before = {path.name: path.stat().st_mtime_ns for path in logs.iterdir()}
    state = tiny(str(finished), return_state=True)
    assert state.message == "5 UpToDate"
    assert state_names(state) == dict.fromkeys(STAGES, "UpToDate")
    assert traced(finished) == {}
    assert {path.name: path.stat().st_mtime_ns for path in logs.iterdir()} == before  # not even DVC was asked


def test_a_change_reruns_what_depends_on_it_and_its_undoing_restores(finished: Path) -> None:
    say(finished, left="loud")
    state = tiny(str(finished), return_state=True)
    changed = {"left": "Ran", "bottom": "Ran"}
    assert state_names(state) == {**dict.fromkeys(STAGES, "UpToDate"), **changed}
    assert set(traced(finished)) == {"left", "bottom"}

    say(finished, left="calm")
    state = tiny(str(finished), return_state=True)
    restored = {"left": "Restored", "bottom": "Restored"}
    assert state_names(state) == {**dict.fromkeys(STAGES, "UpToDate"), **restored}
    assert traced(finished) == {}
    assert (finished / "left.txt").read_text() == "cc"


def test_a_stage_whose_inputs_came_out_the_same_is_up_to_date(finished: Path) -> None:
    say(finished, left="cool")  # writes its first letter, as `calm` did
    state = tiny(str(finished), return_state=True)
    assert state_names(state) == {**dict.fromkeys(STAGES, "UpToDate"), "left": "Ran"}


def test_flow_and_repro_agree(finished: Path) -> None:
    say(finished, right="loud")
    assert tiny(str(finished), return_state=True).is_completed()
    repro = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=finished, capture_output=True, text=True, check=True
    )
    assert "Data and pipelines are up to date." in repro.stdout


def test_a_failed_stage_is_shown_and_stops_only_what_depends_on_it(fresh: Path) -> None:
    say(fresh, left="fail")
    state = tiny(str(fresh), return_state=True)
    assert state.is_failed()
    error = "left: ConfigError: left.word='fail': no such word. Choose another."
    assert error in (state.message or "")

    expected = {"top": "Ran", "left": "Failed", "right": "Ran", "bottom": "Skipped", "apart": "Ran"}
    assert state_names(state) == expected
    runs = task_runs(state, len(STAGES))
    assert (runs["left"].state.message or "").startswith("ConfigError: left.word='fail'")
    assert runs["bottom"].state.message == "not run: left did not finish."
    assert set(traced(fresh)) == {"top", "left", "right", "apart"}

    say(fresh, left="calm")
    state = tiny(str(fresh), return_state=True)
    mended = {"left": "Ran", "bottom": "Ran"}
    assert state_names(state) == {**dict.fromkeys(STAGES, "UpToDate"), **mended}


def test_a_run_after_which_dvc_is_not_content_fails(finished: Path) -> None:
    say(finished, apart="meddle")  # succeeds, and has changed the output of `top` behind DVC's back
    state = tiny(str(finished), return_state=True)
    assert state.is_failed()
    assert "`dvc status` is not clean" in (state.message or "")
    assert "top: changed outs" in (state.message or "")
    assert "top" in graph.stale(finished)


def test_the_log_and_the_artifacts_are_in_prefect(finished: Path) -> None:
    (finished / "reports").mkdir()
    (finished / "reports" / "report.md").write_text("# How it went")
    say(finished, bottom="loud")
    state = tiny(str(finished), return_state=True)
    flow_run_id = _flow_run_id(state)
    with get_client(sync_client=True) as client:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=mine)}
        said = []
        for _ in range(300):
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id])))
            said = [log.message for log in logs]
            if "bottom says loud" in said:
                break
            time.sleep(0.1)
    assert "bottom says loud" in said
    assert artifacts["report"].data == "# How it went"
    table = artifacts["stages"].data
    assert '"stage": "bottom", "state": "Ran"' in table
    assert '"key metric": "pass_at_1 0.25"' in table
