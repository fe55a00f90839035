"""Workspaces on a real git and DVC project: what they hold and share; the checkout stays as it is."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from rlpipe.environment import main_checkout
from rlpipe.errors import ConfigError, WorkspaceError
from rlpipe.workspace import adopt, bakeoff_name, chosen, open_bakeoff, open_workspace, run_name, seed_root
from tests.flows.tiny_project import commit, git

REPOSITORY = Path(__file__).resolve().parents[2]
_PIPELINE = """\
stages:
  sft:
    cmd: cat words.txt > model.txt && echo ${sft.steps} >> model.txt && echo ran >> trace.txt
    deps: [words.txt]
    params: [sft.steps]
    outs: [model.txt]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed project: this repository's params.yaml, one stage, one preset, a DVC remote beside it."""
    from dvc.repo import Repo

    root = tmp_path / "checkout"
    (root / "presets").mkdir(parents=True)
    (root / "presets" / "short.yaml").write_text("sft:\n  steps: 3\n")
    (root / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    (root / "dvc.yaml").write_text(_PIPELINE)
    (root / "words.txt").write_text("hello\n")
    (root / ".gitignore").write_text("/runs/\n/.rlpipe/\n/trace.txt\n")
    git(root, "init", "--quiet", "--initial-branch", "main")
    Repo.init(str(root)).close()
    with (root / ".dvc" / "config").open("a") as file:
        file.write("[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n")
    (root / ".gitignore").write_text("/runs/\n/.rlpipe/\n/trace.txt\n/model.txt\n")
    commit(root)
    return root


def dvc(root: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout


def params(root: Path) -> dict:
    return YAML(typ="safe").load((root / "params.yaml").read_text())


def status(root: Path) -> str:
    return git(root, "status", "--porcelain")


# ---- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "assignments", "name", "expected"),
    [
        (None, [], None, "checkout"),
        ("gsm8k", [], None, "gsm8k"),
        (None, ["policy.grpo.kl_coef=0.1"], None, "policy.grpo.kl_coef-0.1"),
        ("gsm8k", ["seed=3", "sft.steps=9"], None, "gsm8k+seed-3+sft.steps-9"),
        ("gsm8k", ["seed=3"], "mine", "mine"),
    ],
)
def test_a_name_can_be_read(preset: str | None, assignments: list[str], name: str | None, expected: str) -> None:
    assert run_name(preset, assignments, name) == expected


def test_different_overrides_have_different_names() -> None:
    # The first three are the same after everything that a folder's name cannot hold is replaced.
    overrides = [["data.path=/a b"], ["data.path=/a/b"], ["data.path=/a?b"], ["seed=1"], ["seed=-1"]]
    overrides += [[f"sft.steps={'1' * 80}{last}"] for last in "12"]  # the same in their first 60 characters
    names = [run_name(None, assignments, None) for assignments in overrides]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 60 and "/" not in name and " " not in name for name in names)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "checkout"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(WorkspaceError, match="--name"):
        run_name(None, [], name)


@pytest.mark.parametrize("override", ["sft.steps=many", "policy.grpo.kl_coef=-1", "policy.grpo.group_size=1"])
def test_what_is_refused_leaves_nothing_behind(checkout: Path, override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=key), open_workspace(checkout, "mine", None, [override]):
        pass
    assert not (checkout / "runs" / "mine").exists()


def test_named_algorithms_are_in_the_name() -> None:
    assert run_name(None, [], None, ["grpo", "dpo"]) == "algos-grpo+dpo"
    assert run_name("gsm8k", ["seed=3"], None, ["all"]) == "gsm8k+algos-all+seed-3"
    assert run_name(None, [], "mine", ["grpo"]) == "mine"
    many = [f"algorithm_{number}" for number in range(20)]
    assert run_name(None, [], None, many) != run_name(None, [], None, many[:-1])


def test_a_bakeoffs_name_does_not_depend_on_its_algorithms() -> None:
    assert bakeoff_name(None, [], None) == "bakeoff"
    assert bakeoff_name("gsm8k", ["seed=3"], None) == "bakeoff+gsm8k+seed-3"
    assert bakeoff_name("gsm8k", [], "mine") == "mine"
    with pytest.raises(WorkspaceError, match="--name"):
        bakeoff_name(None, [], "a/b")


# ---- what a workspace holds -------------------------------------------------------------------------


def test_it_has_the_commit_the_uncommitted_changes_and_the_overrides(checkout: Path) -> None:
    (checkout / "words.txt").write_text("changed\n")
    (checkout / "new.bin").write_bytes(b"\0\1")
    git(checkout, "add", "new.bin")
    before = status(checkout)
    with open_workspace(checkout, "mine", "short", ["seed=5"]) as root:
        assert root == checkout / "runs" / "mine"
        assert (root / "words.txt").read_text() == "changed\n"
        assert (root / "new.bin").read_bytes() == b"\0\1"
        assert (params(root)["sft"]["steps"], params(root)["seed"]) == (3, 5)
        assert main_checkout(root) == checkout
    assert status(checkout) == before
    assert params(checkout)["seed"] != 5
    assert main_checkout(checkout) == checkout


def test_the_user_is_told_what_git_does_not_track(checkout: Path, caplog: pytest.LogCaptureFixture) -> None:
    (checkout / "forgotten.py").write_text("")
    with caplog.at_level(logging.WARNING), open_workspace(checkout, "mine", "short", []) as root:
        assert not (root / "forgotten.py").exists()
    assert "forgotten.py" in caplog.text


def test_opening_it_again_brings_it_to_the_checkouts_state(checkout: Path) -> None:
    with open_workspace(checkout, "mine", "short", ["seed=5"]) as root:
        (root / "words.txt").write_text("edited in the workspace\n")
        (root / "stray.txt").write_text("")
    (checkout / "words.txt").write_text("second\n")
    commit(checkout)
    with open_workspace(checkout, "mine", None, ["seed=6"]) as root:
        assert (root / "words.txt").read_text() == "second\n"
        assert not (root / "stray.txt").exists()
        assert params(root)["seed"] == 6
        assert params(root)["sft"]["steps"] == params(checkout)["sft"]["steps"]


def test_one_that_was_deleted_by_hand_is_made_again(checkout: Path) -> None:
    import shutil

    with open_workspace(checkout, "mine", "short", []) as root:
        pass
    shutil.rmtree(root)
    with open_workspace(checkout, "mine", "short", []) as root:
        assert (root / "words.txt").exists()


def test_without_overrides_the_run_is_in_the_checkout(checkout: Path) -> None:
    with chosen(checkout, None, [], None) as (root, name):
        assert (root, name) == (checkout, "checkout")
    assert not (checkout / "runs").exists()


def test_a_path_that_only_the_checkout_can_see_becomes_absolute(checkout: Path) -> None:
    (checkout.parent / "shared").mkdir()
    (checkout / "models").mkdir()
    (checkout / "models" / "mine").mkdir()
    overrides = ["data.path=../shared", "model.name_or_path=models/mine"]
    with open_workspace(checkout, "mine", None, overrides) as root:
        assert params(root)["data"]["path"] == str(checkout.parent / "shared")
        assert params(root)["model"]["name_or_path"] == str(checkout / "models" / "mine")
    overrides = ["data.path=presets", "model.name_or_path=org/model"]
    with open_workspace(checkout, "mine", None, overrides) as root:
        assert params(root)["data"]["path"] == "presets"  # tracked: the workspace has its own
        assert params(root)["model"]["name_or_path"] == "org/model"  # no such folder: a hub id


def test_data_that_dvc_tracks_is_there(checkout: Path) -> None:
    (checkout / "rows.csv").write_text("a,b\n")
    dvc(checkout, "add", "rows.csv")
    commit(checkout)
    with open_workspace(checkout, "mine", "short", []) as root:
        assert (root / "rows.csv").read_text() == "a,b\n"


# ---- policies for named algorithms -----------------------------------------------------------------


def test_named_algorithms_become_the_policies_and_overrides_of_them_apply_after(checkout: Path) -> None:
    overrides = ["recipe.online.token_budget=5000", "policy.grpo.kl_coef=0.125"]
    with open_workspace(checkout, "mine", None, overrides, ["grpo", "dpo", "distillation"]) as root:
        made = params(root)
    assert list(made["policy"]) == ["grpo", "dpo", "distillation"]
    assert made["policy"]["grpo"]["kl_coef"] == 0.125
    assert made["policy"]["grpo"]["token_budget"] == 5000
    assert made["pairs"]["gold"]["token_budget"] == 5000  # as many as those who sample while they learn
    assert made["evaluate"]["models"] == ["sft", "grpo", "dpo", "distillation"]
    assert made["seed"] == params(checkout)["seed"]


def test_all_is_every_algorithm_that_can_be_a_policy(checkout: Path) -> None:
    from rlpipe.algos.sections import sectionable

    with open_workspace(checkout, "mine", None, [], ["all"]) as root:
        assert list(params(root)["policy"]) == list(sectionable())


def test_a_bakeoff_has_a_workspace_a_seed_and_they_differ_in_nothing_else(checkout: Path) -> None:
    with open_bakeoff(checkout, None, ["seed=40"], "mine", ["grpo"], 2) as opened:
        assert opened.roots == {seed: checkout / "runs" / f"mine-seed{seed}" for seed in (40, 41)}
        assert opened.roots[41] == seed_root(checkout, "mine", 41)
        first, second = (params(root) for root in opened.roots.values())
        with pytest.raises(WorkspaceError, match="in use"), open_bakeoff(checkout, None, [], "mine", ["grpo"], 1):
            pass
        with pytest.raises(WorkspaceError, match="in use"), chosen(checkout, None, [], "mine-seed41"):
            pass
    assert (first.pop("seed"), second.pop("seed")) == (40, 41)
    assert first == second


def test_a_bakeoff_of_nothing_in_particular_is_of_the_algorithms_in_params_yaml(checkout: Path) -> None:
    with open_bakeoff(checkout, None, [], None, [], 1) as opened:
        (root,) = opened.roots.values()
        expected = {section["algorithm"] for section in params(checkout)["policy"].values()}
        assert set(params(root)["policy"]) == expected


@pytest.mark.parametrize(
    ("algos", "overrides", "message"),
    [
        (["grop"], [], "algorithm 'grop': unknown. Did you mean 'grpo'"),
        (["sft"], [], "'sft': a stage of its own"),
        (["process_reward_model"], [], "'process_reward_model': a stage of its own"),
        (
            ["distillation"],
            [],
            "'distillation' learns from models/grpo, which 'grpo' writes, and that is not",
        ),
        (["grpo"], ["evaluate.models=[sft]"], "choosing algorithms decides evaluate.models"),
        (["grpo"], ["policy.dpo.beta=1"], "policy.dpo: unknown key"),
        (["grpo"], ["policy.grpo.group_size=1"], "needs at least 2 samples per prompt"),
    ],
)
def test_a_list_that_cannot_work_makes_nothing(
    checkout: Path, algos: list[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)), open_bakeoff(checkout, None, overrides, None, algos, 2):
        pass
    with pytest.raises(ConfigError, match=re.escape(message)), chosen(checkout, None, overrides, None, algos):
        pass
    assert not (checkout / "runs").exists()


def test_a_bakeoff_without_a_seed_or_over_a_runs_workspace_is_refused(checkout: Path) -> None:
    with pytest.raises(ConfigError, match="--seeds 0"), open_bakeoff(checkout, None, [], None, ["grpo"], 0):
        pass
    with open_workspace(checkout, "mine", "short", []):
        pass
    with (
        pytest.raises(WorkspaceError, match="runs/mine is the workspace of a run"),
        open_bakeoff(checkout, None, [], "mine", ["grpo"], 1),
    ):
        pass


# ---- what is refused --------------------------------------------------------------------------------


def test_a_workspace_in_use_is_refused(checkout: Path) -> None:
    with (
        open_workspace(checkout, "mine", "short", []),
        pytest.raises(WorkspaceError, match="runs/mine is in use"),
        open_workspace(checkout, "mine", "short", []),
    ):
        pass
    with open_workspace(checkout, "mine", "short", []), open_workspace(checkout, "other", "short", []):
        pass  # two of different names, and one after it was released, are fine


@pytest.mark.parametrize(
    ("preset", "assignments", "error", "hint"),
    [
        ("shrot", [], WorkspaceError, "Did you mean 'short'"),
        (None, ["sft.stepz=3"], ConfigError, "Did you mean 'steps'"),
    ],
)
def test_a_wrong_override_makes_nothing(
    checkout: Path, preset: str | None, assignments: list[str], error: type[Exception], hint: str
) -> None:
    with pytest.raises(error, match=hint), open_workspace(checkout, "mine", preset, assignments):
        pass
    assert not (checkout / "runs").exists()


def test_a_folder_that_is_no_workspace_is_left_alone(checkout: Path) -> None:
    precious = checkout / "runs" / "mine" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    with (
        pytest.raises(WorkspaceError, match="is no workspace"),
        open_workspace(checkout, "mine", "short", []),
    ):
        pass
    assert precious.read_text() == "mine"


def test_a_checkout_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    with (
        pytest.raises(WorkspaceError, match="nothing is committed"),
        open_workspace(tmp_path, "mine", None, ["seed=1"]),
    ):
        pass


# ---- what is shared, and adopted --------------------------------------------------------------------


@pytest.mark.slow
def test_cache_and_remote_are_the_checkouts_in_both_directions(checkout: Path) -> None:
    dvc(checkout, "repro")
    (checkout / "trace.txt").unlink()
    with open_workspace(checkout, "same", None, ["seed=5"]) as root:
        assert "is cached" in dvc(root, "repro")  # the stage does not depend on the seed
        assert not (root / "trace.txt").exists()
    with open_workspace(checkout, "mine", "short", []) as root:
        dvc(root, "repro")
        assert (root / "trace.txt").read_text() == "ran\n"
        dvc(root, "push")
    assert any((checkout.parent / "store").rglob("*"))
    (checkout / "params.yaml").write_text((root / "params.yaml").read_text())
    assert "is cached" in dvc(checkout, "repro")
    assert (checkout / "model.txt").read_text() == "hello\n3\n"


@pytest.mark.slow
def test_adopt_brings_params_lock_and_outputs(checkout: Path) -> None:
    dvc(checkout, "repro")
    commit(checkout)
    with open_workspace(checkout, "mine", "short", []) as root:
        with pytest.raises(WorkspaceError, match="in use"):
            adopt(checkout, "mine")
        with pytest.raises(WorkspaceError, match="in use"), chosen(checkout, None, [], "mine"):
            pass
    with pytest.raises(WorkspaceError, match="not finished: sft"):
        adopt(checkout, "mine")
    dvc(root, "repro")

    (checkout / "params.yaml").write_text((checkout / "params.yaml").read_text() + "# a note\n")
    with pytest.raises(WorkspaceError, match=r"params\.yaml has changes that are not committed"):
        adopt(checkout, "mine")
    assert (checkout / "params.yaml").read_text().endswith("# a note\n")
    git(checkout, "checkout", "params.yaml")

    adopt(checkout, "mine")
    assert params(checkout)["sft"]["steps"] == 3
    assert (checkout / "model.txt").read_text() == "hello\n3\n"
    assert "up to date" in dvc(checkout, "status")


def test_adopting_an_unknown_run_names_the_nearest(checkout: Path) -> None:
    with pytest.raises(WorkspaceError, match="There are no runs yet"):
        adopt(checkout, "mine")
    with open_workspace(checkout, "mine", "short", []):
        pass
    with pytest.raises(WorkspaceError, match="Did you mean 'mine'"):
        adopt(checkout, "nine")
