"""The store opened in a process beside a stage, while the stage imports its own libraries.

For a stage that no pipeline shares its store with, as under a bare `dvc repro`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rlpipe.config import load
from rlpipe.environment import importing
from rlpipe.errors import RlpipeError, TrackingError
from rlpipe.tracking.shared import listen, socket_in_a_folder
from rlpipe.tracking.stage import STORE_VARIABLE
from rlpipe.tracking.store import open_store
from rlpipe.tracking.writer import StoreWriter


@contextmanager
def beside(root: Path) -> Iterator[None]:
    """Within, `stage_run` finds the store of the workspace `root` being opened, or a pipeline's open one.

    The process ends with the block, and with this process where that is killed: it waits for the end of its input. It
    has a session of its own, so that Ctrl-C leaves it to write that the stage was interrupted.
    """
    if STORE_VARIABLE in os.environ:
        yield
        return
    with socket_in_a_folder() as opened:
        if opened is None:
            yield
            return
        listening, at = opened
        number = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "rlpipe.tracking.beside", str(number), str(Path(at).parent)],
            cwd=root,
            stdin=subprocess.PIPE,
            pass_fds=[number],
            start_new_session=True,
        )
        listening.close()  # the other process has it: once that is gone, nobody answers here
        assert process.stdin is not None, "it was asked for"
        os.environ[STORE_VARIABLE] = at
        try:
            yield
        finally:
            del os.environ[STORE_VARIABLE]
            process.kill()  # every call is answered
            process.wait()
            process.stdin.close()


class _Closed:
    """What writes to a store that did not open."""

    def __init__(self, error: RlpipeError) -> None:
        self._error = str(error)

    def __getattr__(self, method: str) -> NoReturn:
        raise TrackingError(self._error)


def _serve(listening: socket.socket) -> None:
    """Open the store of the folder that we stand in and answer calls. Who asks before it is open waits."""
    root = Path()
    try:
        with importing():
            writer: StoreWriter | _Closed = StoreWriter(open_store(root, load(root)))
    except RlpipeError as error:
        writer = _Closed(error)
    listen(listening, writer, threading.Event())


def main() -> None:
    """Serve at the socket of number `argv[1]`, in the folder `argv[2]`, until standard input ends."""
    number, folder = sys.argv[1:]
    threading.Thread(target=_serve, args=(socket.socket(fileno=int(number)),), daemon=True).start()
    sys.stdin.buffer.read()
    # The stage was killed.
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
