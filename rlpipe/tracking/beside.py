"""The store opened in a process beside a stage, while the stage imports its own libraries.

For a stage that no pipeline shares its store with, as under a bare `dvc repro`.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rlpipe.config import load
from rlpipe.environment import importing
from rlpipe.errors import RlpipeError, TrackingError
from rlpipe.helper import helper, taken_over
from rlpipe.tracking.shared import listen
from rlpipe.tracking.stage import STORE_VARIABLE
from rlpipe.tracking.store import open_store
from rlpipe.tracking.writer import StoreWriter


@contextmanager
def beside(root: Path) -> Iterator[None]:
    """Within, `stage_run` finds the store of the workspace `root` being opened, or a pipeline's open one.

    The process ends with the block, every call being answered, and with this process where that is killed. Ctrl-C
    leaves it to write that the stage was interrupted.
    """
    if STORE_VARIABLE in os.environ:
        yield
        return
    with helper("rlpipe.tracking.beside", root) as at:
        if at is None:
            yield
            return
        os.environ[STORE_VARIABLE] = at
        try:
            yield
        finally:
            del os.environ[STORE_VARIABLE]


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
    """Serve as `helper` says, until standard input ends."""
    listening, folder = taken_over(sys.argv)
    threading.Thread(target=_serve, args=(listening,), daemon=True).start()
    sys.stdin.buffer.read()
    # The stage was killed.
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
