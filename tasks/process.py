"""Child processes in groups of their own: followed line by line, and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rlpipe.errors import StageError

# Less than the 30 seconds after which Prefect's runner kills a cancelled flow.
GRACE_SECONDS = 20.0

_POLL_SECONDS = 0.1


class Children:
    """The live stage processes of one flow run.

    Each leads a process group, so that a signal reaches the training below DVC and its shell, and so that
    Ctrl-C in a terminal reaches the flow alone, which then decides. `grace` is the time in seconds that they
    have to end once they are interrupted.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace
        self._lock = threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called: a child that ended since then was ended by us."""
        return self._stopping

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None],
    ) -> int:
        """Run `command` to its end and return its exit code, negative for a signal.

        Its output goes to the file `log`, which is followed: with a pipe, the death of the flow would be the
        death of a training that is about to finish. Raises: StageError if the children are being stopped.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink, self._lock:
            if self._stopping:
                raise StageError("not started: the run is being stopped.")
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._live.add(process)
        try:
            _follow(process, log, on_line)
            return process.wait()
        finally:
            with self._lock:
                self._live.discard(process)

    def stop(self) -> None:
        """Interrupt every group, wait for all to end while the grace lasts, then kill what is left.

        An exception during the wait, such as a second Ctrl-C, kills at once.
        """
        with self._lock:
            self._stopping = True
            live = list(self._live)
        for process in live:
            _signal(process, signal.SIGINT)
        deadline = time.monotonic() + self._grace
        try:
            while any(_has_group(process) for process in live) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        finally:
            for process in live:
                _signal(process, signal.SIGKILL)


def _follow(process: subprocess.Popen[bytes], log: Path, on_line: Callable[[str], None]) -> None:
    """Hand on each line of `log` as it is written, until `process` has ended."""
    rest = b""
    with log.open("rb") as file:
        while True:
            ended = process.poll() is not None  # asked before reading, so that the last read sees all
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                on_line(_shown(line))
            if ended:
                break
            time.sleep(_POLL_SECONDS)
    if rest:
        on_line(_shown(rest))


def _shown(line: bytes) -> str:
    """What a terminal would show of a line: a progress bar overwrites itself by carriage returns."""
    return line.decode("utf-8", errors="replace").rstrip("\r").rpartition("\r")[2]


def _has_group(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # reaps the leader, which would otherwise count as alive
    return _signal(process, 0)


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the group that `process` leads; False when nobody is left in it."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
