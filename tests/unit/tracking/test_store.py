"""The store opens once, safely, where `tracking.uri` says, or says why not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlpipe.config import Params
from rlpipe.errors import TrackingError
from rlpipe.tracking.store import absolute, open_store

ROOT = Path(__file__).parents[3]
PROCESSES = 3

OPEN_AND_LOG = """
import sys
from pathlib import Path
from rlpipe.config import load
from rlpipe.tracking.store import open_store
from mlflow.entities import Metric
store = open_store(Path(sys.argv[1]), load(Path(sys.argv[2])))
run = store.client.create_run(store.experiment_id).info.run_id
for step in range(20):
    store.client.log_batch(run, metrics=[Metric("kl/ref_k1_token", float(step), 0, step)])
print(store.experiment_id)
"""


def test_importing_the_room_does_not_import_mlflow() -> None:
    code = "import sys, rlpipe.tracking; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.slow
def test_processes_that_open_a_fresh_store_at_once_all_succeed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_AND_LOG, str(tmp_path), str(ROOT)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    ended = [(*process.communicate(), process.returncode) for process in started]
    assert [code for *_, code in ended] == [0] * PROCESSES, "\n".join(err for _, err, _ in ended)
    assert len({out for out, *_ in ended}) == 1, "one experiment for all"
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_a_relative_database_is_the_main_checkouts_also_from_a_worktree(tmp_path: Path) -> None:
    main, workspace = tmp_path / "main", tmp_path / "main/runs/one"
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "-C", str(main)]
    main.mkdir()
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "start"], check=True)
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(workspace)], check=True)
    expected = f"sqlite:///{main.resolve()}/mlflow.db"
    assert absolute(main, "sqlite:///mlflow.db") == expected
    assert absolute(workspace, "sqlite:///mlflow.db") == expected


def test_an_absolute_database_and_a_server_stay_as_written(tmp_path: Path) -> None:
    for uri in (f"sqlite:///{tmp_path}/x.db", "http://127.0.0.1:5000", "postgresql://host/db"):
        assert absolute(tmp_path, uri) == uri


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "./mlruns"])
def test_a_folder_is_refused_with_the_remedy(tmp_path: Path, uri: str) -> None:
    with pytest.raises(TrackingError, match=r"no store for parallel stages. Set sqlite:///mlflow.db"):
        absolute(tmp_path, uri)


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path, params: Params) -> None:
    (tmp_path / "mlflow.db").write_text("no database, whatever its name\n" * 100)
    with pytest.raises(TrackingError, match=r"tracking.uri=sqlite:///mlflow.db: .*not a database"):
        open_store(tmp_path, params)


def test_a_server_that_is_down_is_refused_by_name(
    tmp_path: Path, with_uri: Callable[[str], Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{_free_port()}"
    with pytest.raises(TrackingError, match=rf"tracking.uri={uri}: .*Start the server"):
        open_store(tmp_path, with_uri(uri))


def test_a_deleted_experiment_is_said_to_be_deleted(project: Path, params: Params) -> None:
    store = open_store(project, params)
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(TrackingError, match="experiment 'rlpipe' is deleted"):
        open_store(project, params)


def test_artifacts_stand_beside_the_database(database: Path, params: Params) -> None:
    store = open_store(database.parent, params)
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.artifact_location == (database.parent / "mlartifacts").as_uri()


@pytest.mark.slow
def test_a_server_serves_as_well(tmp_path: Path, server: str, with_uri: Callable[[str], Params]) -> None:
    from mlflow.entities import Metric

    store = open_store(tmp_path, with_uri(server))
    run = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_batch(run, metrics=[Metric("kl/coef", 0.5, 0, 7)])
    assert [m.step for m in store.client.get_metric_history(run, "kl/coef")] == [7]
    assert open_store(tmp_path, with_uri(server)).experiment_id == store.experiment_id
    assert not (tmp_path / "mlflow.db").exists()


@pytest.fixture
def server(tmp_path: Path, database: Path) -> Iterator[str]:
    """A real `mlflow server` on loopback."""
    served = tmp_path / "served.db"
    served.write_bytes(database.read_bytes())
    port = _free_port()
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{served}"]
    arguments += ["--artifacts-destination", str(tmp_path / "served")]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
