"""Every preset, laid over params.yaml, keeps every rule."""

import shutil
from pathlib import Path

import pytest

from rlpipe.config.edit import edited
from rlpipe.stages.runner import checked

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_valid(preset, tmp_path):
    text = edited((ROOT / "params.yaml").read_text(), preset.read_text(), [])
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data/constitution.yaml", tmp_path / "data")
    params = checked(tmp_path)
    assert set(params.evaluate.models) <= {"sft", *params.policy}
