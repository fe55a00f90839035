"""kill -9 in the middle of a real stage, then the stage again: the same files as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlpipe.config.edit import edited
from rlpipe.lineage import digest

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.arithmetic.sft_rows=40",
    "data.arithmetic.rl_rows=20",
    "data.arithmetic.heldout_rows=10",
    "model.scratch.hidden_size=32",
    "model.scratch.intermediate_size=64",
    "model.scratch.num_hidden_layers=2",
    "sft.steps=200",
    "sft.batch_size=8",
    "runtime.checkpoint_every=20",
]
OUTPUTS = ("models/sft", "metrics/sft.json", "plots/sft.csv")


def _stage(root, name):
    return subprocess.Popen(
        [sys.executable, "-m", "rlpipe", "stage", name],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ended(process):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(tmp_path):
    (tmp_path / "params.yaml").write_text(edited((ROOT / "params.yaml").read_text(), None, SMALL))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    _ended(_stage(tmp_path, "prepare"))
    _ended(_stage(tmp_path, "sft"))
    expected = {path: digest(tmp_path / path) for path in OUTPUTS}
    for path in ("models", "plots"):
        shutil.rmtree(tmp_path / path)

    victim = _stage(tmp_path, "sft")
    scratch = tmp_path / ".rlpipe/scratch/sft"
    deadline = time.monotonic() + 240
    while not list(scratch.glob("*.pt")):
        assert victim.poll() is None, "it ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "models/sft").exists()

    resumed = _stage(tmp_path, "sft")
    output, _ = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, output
    assert " 0/200 " not in output, "it started over instead of resuming"
    assert {path: digest(tmp_path / path) for path in OUTPUTS} == expected
    assert not scratch.exists()
