"""The commit, as tags."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rlpipe.tracking.source import commit_tags


def test_commit_and_dirt_are_those_of_git(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert commit_tags(tmp_path) == {"rlpipe.git_commit": "none"}, "no commit yet"
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "dvc.lock").write_text("a\n")
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "start"], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    (tmp_path / "dvc.lock").write_text("b\n")
    (tmp_path / "notes").write_text("untracked")
    clean = {"rlpipe.git_commit": head, "rlpipe.git_dirty": "false", "mlflow.source.git.commit": head}
    assert commit_tags(tmp_path) == clean, "dvc.lock and untracked files do not count"
    (tmp_path / "params.yaml").write_text("a: 2\n")
    assert commit_tags(tmp_path)["rlpipe.git_dirty"] == "true"
