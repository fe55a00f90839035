"""How a stage's command has its work done by a process that has the libraries already (`rlpipe.warm`).

Standard library only, and cheap: this is all that the command imports then.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

_log = logging.getLogger(__name__)

# Where to ask: the address of a process that serves this workspace.
VARIABLE = "RLPIPE_WARM"
_STANDARD = (0, 1, 2)
_FORWARDED = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Order:
    """What to do, as whom: the arguments of `rlpipe`, the environment, the working directory."""

    argv: tuple[str, ...]
    environ: dict[str, str]
    cwd: Path


@dataclass(frozen=True)
class Refusal:
    """Why an order is not done."""

    because: str


def handed_over(argv: Sequence[str]) -> int | None:
    """Have `rlpipe argv` done by a warm process, with this one's environment, folder and standard streams.

    Interrupts and termination are handed on; who is killed here is killed there, and the other way round.
    Returns: its exit code; None where no process is offered or it refuses: then it is to be done here.
    """
    at = os.environ.pop(VARIABLE, None)
    if at is None:
        return None
    try:
        with _asked(at, Order(tuple(argv), dict(os.environ), Path.cwd())) as connection:
            answer = connection.recv()
            if isinstance(answer, Refusal):
                _log.warning("not started warm: %s", answer.because)
                return None
            return _awaited(connection)
    except (OSError, EOFError) as error:
        _log.warning("not started warm: %r", error)
        return None


def received(accepted: socket.socket) -> tuple[Order, list[int], Connection]:
    """On the other side: an order, its standard streams, and where to answer."""
    _, streams, _, _ = socket.recv_fds(accepted, 1, len(_STANDARD))
    connection: Connection = Connection(accepted.detach())
    try:
        return connection.recv(), streams, connection
    except (OSError, EOFError):
        for stream in streams:
            os.close(stream)
        raise


@contextmanager
def _asked(at: str, order: Order) -> Iterator[Connection]:
    opened = socket.socket(socket.AF_UNIX)
    with opened:
        opened.connect(at)
        socket.send_fds(opened, [b"."], _STANDARD)
        connection: Connection = Connection(opened.detach())
    with connection:
        connection.send(order)
        yield connection


def _awaited(connection: Connection) -> int:
    """The exit code of what was started. A signal that ended it ends this process too."""
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: connection.send(received))
    try:
        code: int = connection.recv()
    except (OSError, EOFError):
        # Whoever forked it is gone, and it with that: as if the system had killed this process.
        code = -signal.SIGKILL
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    if code < 0:
        os.kill(os.getpid(), -code)
    return code
