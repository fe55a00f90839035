"""A process that serves another one at a socket, and ends with it. Standard library only, and cheap."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)

_BACKLOG = 64


@contextmanager
def socket_in_a_folder() -> Iterator[tuple[socket.socket, str] | None]:
    """A listening socket that only this user can reach, and its address; None where none can be had."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rlpipe-", ignore_cleanup_errors=True))
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(at := f"{folder}/socket")
            listening.listen(_BACKLOG)
        except OSError as error:  # such as a TMPDIR too long for a socket
            _log.warning("no socket for other processes can be had, which costs time and nothing else: %s", error)
            yield None
            return
        yield listening, at


@contextmanager
def helper(module: str, root: Path) -> Iterator[str | None]:
    """Within, `python -m module` serves in the folder `root` at this address; None where no socket can be had.

    It is handed what `taken_over` reads. Its standard input ends when this process ends or is killed; at the end of
    the block it is killed. It has a session of its own: Ctrl-C leaves it at work.
    """
    with socket_in_a_folder() as opened:
        if opened is None:
            yield None
            return
        listening, at = opened
        number = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(number), str(Path(at).parent)],
            cwd=root,
            stdin=subprocess.PIPE,
            pass_fds=[number],
            start_new_session=True,
        )
        listening.close()  # the other process has it: once that is gone, nobody answers here
        assert process.stdin is not None, "it was asked for"
        try:
            yield at
        finally:
            process.kill()
            process.wait()
            process.stdin.close()


def taken_over(argv: Sequence[str]) -> tuple[socket.socket, Path]:
    """In a helper: the listening socket, and its folder, to be removed when standard input has ended."""
    _, number, folder = argv
    return socket.socket(fileno=int(number)), Path(folder)
