"""What must stand in the environment before a heavy library is imported. Standard library only, and cheap."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TELEMETRY_OFF = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

# The console shows what flows and stages say, and of Prefect itself only warnings. No block types are needed.
_PREFECT = {
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}


def prepare(root: Path) -> None:
    """Set the defaults for a run in the checkout or workspace `root`; what the user has set is kept.

    Telemetry off; Prefect's home in the main checkout, so that the runs of all workspaces are in one place;
    the interpreter's folder first on PATH, because DVC starts `python` by a shell that may know another one.
    """
    for name, value in {**_TELEMETRY_OFF, **_PREFECT}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_HOME", str(main_checkout(root) / ".prefect"))
    folder = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] != folder:
        os.environ["PATH"] = os.pathsep.join([folder, path])


@contextmanager
def importing() -> Iterator[None]:
    """Within, Python does not look for garbage: importing makes a million objects and next to none.

    What is there at the end stays, and is not looked through again. A sixth of the time that a stage's imports take.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main_checkout(root: Path) -> Path:
    """The checkout that `root` is a git worktree of; `root` itself where it is no worktree."""
    link = root / ".git"
    if not link.is_file():
        return root.resolve()
    folder = (root / link.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
    common = folder / "commondir"
    if not common.exists():
        return root.resolve()
    return (folder / common.read_text(encoding="utf-8").strip()).resolve().parent
