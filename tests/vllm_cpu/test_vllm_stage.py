"""Stage `policy` with vLLM in both its parts: it draws the policy's samples and runs the judge that scores them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from small_decoders import decoder, shaken

from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.dataio.files import write_rows
from rlpipe.dataio.prepared import TASKS
from rlpipe.models.load import save
from rlpipe.stages import policy
from rlpipe.stages.base import Stage
from rlpipe.types import Task

TEXT = (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8")
PROMPTS = ["1+2", "3+4", "5+1", "2+2", "6-1", "4-2"]
SMALL = (
    "runtime.checkpoint_every=1",
    "rollout.engine=vllm",
    "rollout.max_new_tokens=6",
    "rollout.vllm.kv_cache_gb=0.1",
    "rollout.vllm.gpu_memory_utilization=0.1",
    "rollout.correction={level: sequence, mode: mask, cap: 2.0}",
    "judge.kind=local",
    "judge.name_or_path=models/judge",
    "judge.engine=vllm",
    "policy.rlaif.steps=3",
    "policy.rlaif.prompts_per_step=4",
    "policy.rlaif.group_size=2",
)


class _Tracker:
    """Stops the work, as a kill would, at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.stop_at:
            raise KeyboardInterrupt

    def summary(self, values: Mapping[str, float]) -> None: ...

    def dataset(self, name: str, path: Path) -> None: ...


def _run(root: Path, tracker: _Tracker) -> None:
    policy.run(Stage("policy", "rlaif", root, parse(edited(TEXT, None, SMALL)), tracker))  # type: ignore[arg-type]


def _outputs(root: Path) -> dict[str, bytes]:
    rooms = ("models/rlaif", "plots", "metrics", "data/judgments")
    paths = [path for room in rooms for path in (root / room).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_killed_and_resumed_is_never_killed(tmp_path, tokenizer):
    root, other = tmp_path / "a", tmp_path / "b"
    save(decoder(tied=True), tokenizer, root / "models/sft")
    save(shaken(decoder(max_length=1024), 0.3), tokenizer, root / "models/judge")
    write_rows(root / TASKS, [Task(f"t:{at}", prompt, "1") for at, prompt in enumerate(PROMPTS)])
    shutil.copytree(root, other)
    _run(root, _Tracker())
    with pytest.raises(KeyboardInterrupt):
        _run(other, _Tracker(stop_at=1))
    _run(other, _Tracker())
    assert _outputs(other) == _outputs(root)
    metrics = json.loads((root / "metrics/policy/rlaif.json").read_text())
    assert metrics["judge/judged"] > 4
    assert metrics["kl/rollout_train"] < 1e-6
    assert metrics["is/correction_mean"] == pytest.approx(1, abs=1e-3)
