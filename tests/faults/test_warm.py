"""Stages forked from a process that has their libraries: the same work, and the same end whoever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rlpipe.config.edit import edited
from rlpipe.handover import VARIABLE, Order, _asked
from rlpipe.lineage import digest
from rlpipe.warm import _Sources
from tasks.warm import warm
from tests.processes import children, has_ended, wait_until

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["data.arithmetic.sft_rows=40", "data.arithmetic.rl_rows=20", "data.arithmetic.heldout_rows=10"]
# What a stage's command does, and what it had to import for it.
CLIENT = """
import sys
import time
from rlpipe.handover import handed_over
code = handed_over(sys.argv[1:])
print("code", code, "torch" in sys.modules, flush=True)
"""
PIPELINE = """
import time
from pathlib import Path
from rlpipe.warm import _Sources
from tasks.warm import warm
with warm(Path()) as environ:
    print(*environ.values(), flush=True)
    time.sleep(600)
"""
ENDLESS = ("bandit", "--algo", "ppo", "--steps", "100000000")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not version("torch").endswith("+cpu"),
        reason="stages start warm on Linux and with a CPU build of PyTorch alone",
    ),
]


@dataclass
class Warm:
    """A process that forks stages, and what their environment needs for it."""

    pid: int
    environ: dict[str, str]

    def client(self, *argv: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CLIENT, *argv],
            cwd=cwd,
            env={**os.environ, **self.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def asked(self, *argv: str) -> AbstractContextManager[Connection]:
        """A connection as a command has it that has just sent its order."""
        return _asked(self.environ[VARIABLE], Order(argv, dict(os.environ), ROOT))

    def stages(self) -> list[int]:
        return children(self.pid)

    def endless(self) -> tuple[subprocess.Popen[str], int]:
        """A command that does not end by itself, and the forked process that is at it."""
        client = self.client(*ENDLESS)
        wait_until(lambda: len(self.stages()) == 1)
        (stage,) = self.stages()
        # It has been handed over when it leads its own group; then it is told of signals.
        wait_until(lambda: os.getpgid(stage) == stage)
        return client, stage


@contextmanager
def _warm(root: Path) -> Iterator[Warm]:
    before = set(children(os.getpid()))
    with warm(root) as environ:
        (pid,) = set(children(os.getpid())) - before
        yield Warm(pid, environ)


@pytest.fixture(scope="module")
def served() -> Iterator[Warm]:
    with _warm(ROOT) as process:
        yield process


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with parameters of its own."""
    (tmp_path / "params.yaml").write_text(edited((ROOT / "params.yaml").read_text(), None, SMALL))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path


def test_a_stage_is_done_there_in_this_folder_and_makes_the_same_bytes(served: Warm, workspace: Path) -> None:
    out, _ = served.client("stage", "prepare", cwd=workspace).communicate(timeout=120)
    assert out.splitlines()[-1] == "code 0 False", out
    made = digest(workspace / "data/prepared")
    shutil.rmtree(workspace / "data/prepared")
    cold = [sys.executable, "-m", "rlpipe", "stage", "prepare"]
    subprocess.run(cold, cwd=workspace, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    assert digest(workspace / "data/prepared") == made


def test_a_mistake_is_said_here_and_its_exit_code_is_ours(served: Warm) -> None:
    out, _ = served.client("stage", "sfd").communicate(timeout=120)
    said, code = out.splitlines()
    assert said == "ConfigError: stage 'sfd': unknown. Did you mean 'sft'?"
    assert code == "code 2 False"


def test_who_is_interrupted_here_is_interrupted_there(served: Warm) -> None:
    client, stage = served.endless()
    client.send_signal(signal.SIGINT)
    out, _ = client.communicate(timeout=60)
    assert client.returncode == -signal.SIGINT
    assert out.splitlines()[-1] == "KeyboardInterrupt"
    wait_until(lambda: has_ended(stage))


def test_who_is_terminated_here_is_terminated_there(served: Warm) -> None:
    client, stage = served.endless()
    client.terminate()
    assert client.wait(60) == -signal.SIGTERM
    wait_until(lambda: has_ended(stage))


def test_a_stage_that_is_interrupted_as_it_starts_ends_as_interrupted(served: Warm) -> None:
    for _ in range(10):
        with served.asked(*ENDLESS) as connection:
            assert connection.recv() == "started"
            connection.send(signal.SIGINT)
            assert connection.poll(60)
            assert connection.recv() == -signal.SIGINT


def test_who_is_gone_before_the_answer_leaves_no_stage_and_is_missed_by_nobody_else(served: Warm) -> None:
    for _ in range(10):
        with served.asked(*ENDLESS):
            pass
    wait_until(lambda: not served.stages())
    assert served.client("stage", "sfd").communicate(timeout=120)[0].splitlines()[-1] == "code 2 False"


def test_who_is_killed_here_is_killed_there(served: Warm) -> None:
    client, stage = served.endless()
    client.kill()
    wait_until(lambda: has_ended(stage))


def test_who_is_killed_there_is_killed_here(served: Warm) -> None:
    client, stage = served.endless()
    os.kill(stage, signal.SIGKILL)
    assert client.wait(60) == -signal.SIGKILL


def test_with_the_process_that_forks_its_stages_end_as_killed() -> None:
    with _warm(ROOT) as process:
        client, stage = process.endless()
        os.kill(process.pid, signal.SIGKILL)
        assert client.wait(60) == -signal.SIGKILL
        wait_until(lambda: has_ended(stage))


def test_a_pipeline_that_is_killed_leaves_its_stages_at_work_and_in_the_end_nothing() -> None:
    flow = subprocess.Popen([sys.executable, "-c", PIPELINE], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    at = flow.stdout.readline().strip()
    (pid,) = children(flow.pid)
    process = Warm(pid, {"RLPIPE_WARM": at})
    client, stage = process.endless()
    flow.kill()
    flow.wait()
    assert not has_ended(stage)
    late, _ = process.client("stage", "sfd").communicate(timeout=60)
    assert late.splitlines()[-1] == "code None False"  # it is for the command itself to do
    client.send_signal(signal.SIGINT)
    client.wait(60)
    wait_until(lambda: has_ended(pid) and not Path(at).parent.exists())


def test_after_a_change_of_the_code_the_command_works_by_itself(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "rlpipe", tmp_path / "rlpipe", ignore=shutil.ignore_patterns("__pycache__"))
    with _warm(tmp_path) as process:
        assert process.client("stage", "sfd").communicate(timeout=120)[0].splitlines()[-1] == "code 2 False"
        changed = tmp_path / "rlpipe/ops/kl.py"
        changed.write_text(changed.read_text() + "\n")
        said, code = process.client("stage", "sfd").communicate(timeout=120)[0].splitlines()
    assert said == f"not started warm: {changed} has changed since the pipeline was started."
    assert code == "code None False"


def test_a_file_that_was_written_while_it_was_imported_counts_as_changed() -> None:
    assert _Sources(time.time_ns()).changed() is None
    assert _Sources((ROOT / "rlpipe/warm.py").stat().st_mtime_ns).changed() is not None


def test_where_nobody_answers_the_command_works_by_itself(tmp_path: Path) -> None:
    nobody = Warm(0, {"RLPIPE_WARM": str(tmp_path / "socket")})
    said, code = nobody.client("stage", "sfd").communicate(timeout=60)[0].splitlines()
    assert said.startswith("not started warm: FileNotFoundError")
    assert code == "code None False"


def test_where_pytorch_may_use_cuda_no_such_process_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.warm.version", lambda _: "2.13.0+cu130")
    with warm(ROOT) as environ:
        assert environ == {}
