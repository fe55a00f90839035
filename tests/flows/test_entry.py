"""The whole entry, with this repository's params.yaml: exit codes, MLflow's parent run, signals."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.entry import run
from rlpipe.errors import ConfigError, RlpipeError
from tests.flows.tiny_project import commit, git

REPOSITORY = Path(__file__).resolve().parents[2]
_PIPELINE = """\
stages:
  sft:
    cmd: python show.py
    deps: [show.py]
    params: [sft.steps]
    outs: [environment.json]
"""
_SHOW = """\
import json, os, sys
if os.environ.get("SHOW") == "fail":
    sys.exit("DataError: nothing to show. Show something.")
with open("environment.json", "w") as file:
    json.dump(dict(os.environ), file)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    from dvc.repo import Repo

    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text(_PIPELINE)
    (tmp_path / "show.py").write_text(_SHOW)
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    Repo.init(str(tmp_path)).close()
    commit(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_url")
def test_a_run_has_a_parent_in_mlflow_that_its_stages_are_told_of(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOW", "fail")
    assert run(checkout, "failing") == 1
    assert "DataError: nothing to show. Show something." in caplog.text

    monkeypatch.delenv("SHOW")
    assert run(checkout, "a-run") == 0
    finished = "select run_uuid, name from runs where status = 'FINISHED'"
    told = "select run_uuid, value from tags where key = 'prefect.flow_run_id'"
    with sqlite3.connect(checkout / "mlflow.db") as database:
        ((parent, name),) = database.execute(finished).fetchall()
        flow_run_id = dict(database.execute(told).fetchall())[parent]
    assert name == "a-run"
    seen = json.loads((checkout / "environment.json").read_text())
    assert {parent, flow_run_id} <= set(seen.values())
    assert seen["DO_NOT_TRACK"] == "true"

    assert run(checkout, "nothing-to-do") == 0
    with sqlite3.connect(checkout / "mlflow.db") as database:
        assert database.execute(finished).fetchall() == [(parent, "a-run")]


def test_wrong_parameters_are_found_before_anything_starts(checkout: Path) -> None:
    text = (checkout / "params.yaml").read_text()
    (checkout / "params.yaml").write_text(text.replace("slots: 2", "slots: 0"))
    with pytest.raises(ConfigError, match=r"runtime\.slots=0"):
        run(checkout, "a-run")


def test_a_named_server_that_does_not_answer_is_named(checkout: Path) -> None:
    nowhere = "http://127.0.0.1:9/api"
    with (
        temporary_settings({PREFECT_API_URL: nowhere}),
        pytest.raises(RlpipeError, match=f"PREFECT_API_URL={nowhere}: no server answers there"),
    ):
        run(checkout, "a-run")
