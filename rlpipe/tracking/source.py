"""Which code a run ran."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit_tags(root: Path) -> dict[str, str]:
    """The commit checked out at `root`, and whether tracked files differ from it.

    `dvc.lock` does not count: DVC rewrites it while the pipeline runs.
    """
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    if commit is None or changed is None:
        return {"rlpipe.git_commit": "none"}
    return {
        "rlpipe.git_commit": commit,
        "rlpipe.git_dirty": str(bool(changed)).lower(),
        "mlflow.source.git.commit": commit,
    }


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where `root` has no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
