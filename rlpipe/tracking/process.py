"""Which process a run belongs to, and whether that process still lives."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

HOST, PID, STARTED = "rlpipe.host", "rlpipe.pid", "rlpipe.pid_started"


def own_tags() -> dict[str, str]:
    """Tags that name this process. Its start tells it from a later one with the same number."""
    return {HOST: platform.node(), PID: str(os.getpid()), STARTED: _started(os.getpid())}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process that `own_tags` named has ended. Only to be asked on its own host."""
    pid = int(tags[PID])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _started(pid) != tags.get(STARTED)


def _started(pid: int) -> str:
    """When the process started, in the kernel's ticks; empty for a zombie, and where there is no /proc."""
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text()
    except OSError:
        return ""
    # The second field is the program's name in parentheses and may hold anything; the state follows it.
    after_name = stat.rpartition(")")[2].split()
    return "" if after_name[0] == "Z" else after_name[19]
