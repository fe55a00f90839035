"""The hashes of `rlpipe.lineage` are those that DVC itself writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlpipe import lineage
from rlpipe.errors import ConfigError

ROOT = Path(__file__).parents[2]

DVC_YAML = """
stages:
  plain:
    cmd: "{python} -c \\"from pathlib import Path; Path('tree/deep').mkdir(parents=True); \
Path('tree/deep/b.txt').write_text('b'); Path('tree/é.txt').write_bytes(b'x\\\\r\\\\ny'); \
Path('tree/a.txt').write_text(''); Path('one.json').write_text('{{}}')\\""
    params: [seed]
    outs: [tree]
    metrics: [one.json]
  each:
    foreach: ${{policy}}
    do:
      cmd: "{python} -c \\"open('${{key}}.txt', 'w').write('${{item.algorithm}}')\\""
      params: ["policy.${{key}}"]
      outs:
        - ${{key}}.txt:
            cache: true
  grid:
    matrix:
      name: ${{names}}
      size: [1, 2]
    cmd: "{python} -c \\"open('${{item.name}}-${{item.size}}.txt', 'w').close()\\""
    outs: ["${{item.name}}-${{item.size}}.txt"]
"""
PARAMS = "seed: 1\nnames: [x]\npolicy:\n  grpo: {algorithm: grpo}\n  ppo: {algorithm: ppo}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project after its first `dvc repro`."""
    root = tmp_path_factory.mktemp("project")
    (root / "dvc.yaml").write_text(DVC_YAML.format(python=sys.executable), encoding="utf-8")
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    for command in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, check=True)
    return root


@pytest.mark.parametrize("address", ["plain", "each@grpo", "each@ppo", "grid@x-1", "grid@x-2"])
def test_hashes_of_the_files_are_those_in_dvc_lock(project: Path, address: str) -> None:
    locked = lineage.lock_outputs(project, address)
    assert locked
    assert lineage.file_outputs(project, address) == locked


def test_folder_digest_is_dvcs(project: Path) -> None:
    assert lineage.lock_outputs(project, "plain")["tree"].endswith(".dir")
    assert lineage.digest(project / "tree") == lineage.lock_outputs(project, "plain")["tree"]


def test_folder_digest_sees_content_and_names(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/x").write_text("1")
    (tmp_path / "b/x").write_text("2")
    (tmp_path / "c/y").write_text("1")
    assert len({lineage.digest(tmp_path / name) for name in "abc"}) == 3


def test_outputs_hash_depends_on_paths_and_md5s_but_not_on_their_order() -> None:
    base = lineage.outputs_hash({"a": "1", "b": "2"})
    assert base == lineage.outputs_hash({"b": "2", "a": "1"})
    assert base != lineage.outputs_hash({"a": "2", "b": "1"})
    assert base != lineage.outputs_hash({"a": "1"})


def test_a_stage_without_a_lock_entry_has_no_outputs(project: Path, tmp_path: Path) -> None:
    assert lineage.lock_outputs(project, "unknown") == {}
    assert lineage.lock_outputs(tmp_path, "plain") == {}


def test_an_unknown_stage_is_refused_with_the_nearest_name(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"each@grpoo.*'each@grpo'"):
        lineage.declared(project, "each@grpoo")


def test_the_pipelines_own_stages_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    from dvc.repo import Repo

    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    assert "policy@grpo" in stages
    for address, stage in stages.items():
        declared = lineage.declared(tmp_path, address)
        assert sorted(declared.outs) == sorted(out.def_path for out in stage.outs)
        keys = [key for dep in stage.params for key in dep.params]
        assert sorted(declared.params) == sorted(keys)


def test_parameters_keep_their_dotted_names() -> None:
    values = {"sft": {"lr": 1e-3, "on": True, "none": None}, "sft2": {"a": 1}, "names": ["a"], "text": "x"}
    assert lineage.flattened(values) == {
        "sft.lr": "0.001", "sft.on": "true", "sft.none": "null", "sft2.a": "1", "names": '["a"]', "text": "x",
    }  # fmt: skip
    assert lineage.flattened(values, ("sft.lr", "sft2")) == {"sft.lr": "0.001", "sft2.a": "1"}
    assert lineage.flattened(values, ("sft",)).keys() == {"sft.lr", "sft.on", "sft.none"}
