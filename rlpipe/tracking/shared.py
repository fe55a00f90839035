"""One process's open store for the stages that it starts: importing MLflow costs a process two seconds of CPU.

A stage asks by a socket that the pipeline's process listens at, one connection a call, so that an interrupted call
leaves nothing behind. Where nobody answers (the pipeline was killed), the stage opens the store itself.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection
from typing import Any

from rlpipe.errors import TrackingError
from rlpipe.helper import socket_in_a_folder
from rlpipe.tracking.traces import Call
from rlpipe.tracking.writer import Measured, Writer

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # a database may be locked for some seconds; a stopped pipeline never answers
_DONE, _REFUSED, _CLOSED = "done", "refused", "closed"


class SharedWriter:
    """A Writer that asks the process listening at `at`, and from its first silence on one that `instead` opens."""

    def __init__(self, at: str, instead: Callable[[], Writer]) -> None:
        self._at = at
        self._instead = instead
        self._own: Writer | None = None
        self._opening = threading.Lock()

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        return str(self._call("create", name, dict(tags)))

    def params(self, run_id: str, values: Mapping[str, str]) -> None:
        self._call("params", run_id, dict(values))

    def tag(self, run_id: str, name: str, value: str) -> None:
        self._call("tag", run_id, name, value)

    def metrics(self, run_id: str, measured: Sequence[Measured]) -> None:
        self._call("metrics", run_id, list(measured))

    def dataset(self, run_id: str, name: str, digest: str, source: str) -> None:
        self._call("dataset", run_id, name, digest, source)

    def trace(self, run_id: str, call: Call) -> None:
        self._call("trace", run_id, call)

    def end(self, run_id: str, status: str) -> None:
        self._call("end", run_id, status)

    def _call(self, method: str, *arguments: object) -> Any:
        """Raises: TrackingError where the store did not open, RuntimeError with its words where it refuses."""
        if self._own is None:
            try:
                return _ask(self._at, method, arguments)
            except (OSError, EOFError) as error:
                _log.info("tracking: nobody answers at %s (%r): opening the store here", self._at, error)
        with self._opening:
            if self._own is None:
                self._own = self._instead()
        return getattr(self._own, method)(*arguments)


def _ask(at: str, method: str, arguments: tuple[object, ...]) -> Any:
    with Client(at, family="AF_UNIX") as connection:
        connection.send((method, arguments))
        if not connection.poll(PATIENCE_SECONDS):
            raise TimeoutError(f"no answer in {PATIENCE_SECONDS:.0f} s")
        outcome, result = connection.recv()
    if outcome == _CLOSED:
        raise TrackingError(result)
    if outcome == _REFUSED:
        raise RuntimeError(result)
    return result


@contextmanager
def shared(writer: Writer) -> Iterator[str | None]:
    """Within, processes of this user may use `writer` by the address; None where no socket can be had."""
    with socket_in_a_folder() as opened:
        if opened is None:
            yield None
            return
        listening, at = opened
        closing = threading.Event()
        thread = threading.Thread(target=listen, args=(listening, writer, closing), name="mlflow", daemon=True)
        thread.start()
        try:
            yield at
        finally:
            closing.set()
            Client(at, family="AF_UNIX").close()  # closing a socket does not wake who waits at it
            thread.join()


def listen(listening: socket.socket, writer: Writer, closing: threading.Event) -> None:
    """Answer each call in a thread of its own, until one comes after `closing` is set."""
    while True:
        accepted, _ = listening.accept()
        connection: Connection = Connection(accepted.detach())
        if closing.is_set():
            connection.close()
            return
        threading.Thread(target=_answer, args=(connection, writer), daemon=True).start()


def _answer(connection: Connection, writer: Writer) -> None:
    """Answer one call; who asked may be gone by now, which is no matter here."""
    with connection:
        try:
            method, arguments = connection.recv()
            connection.send(_outcome(writer, method, arguments))
        except (OSError, EOFError) as error:
            _log.debug("tracking: a stage hung up: %r", error)


def _outcome(writer: Writer, method: str, arguments: tuple[object, ...]) -> tuple[str, Any]:
    try:
        return _DONE, getattr(writer, method)(*arguments)
    except TrackingError as error:
        return _CLOSED, str(error)
    except Exception as error:  # whatever the store's database or server throws is for who asked
        return _REFUSED, str(error).strip() or type(error).__name__
