"""One process's open store for the stages that it starts: importing MLflow costs a process two seconds of CPU.

A stage asks by a socket that the pipeline's process listens at, one connection a call, so that an interrupted call
leaves nothing behind. Where nobody answers (no pipeline, or a killed one), the stage opens the store itself.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from rlpipe.errors import TrackingError
from rlpipe.tracking.writer import Measured, Writer

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0  # a database may be locked for some seconds; a stopped pipeline never answers
_BACKLOG = 64


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

    def trace(
        self,
        run_id: str,
        name: str,
        ended_ns: int,
        seconds: float,
        inputs: object,
        outputs: object,
        attributes: Mapping[str, object],
        ok: bool,
    ) -> None:
        self._call("trace", run_id, name, ended_ns, seconds, inputs, outputs, dict(attributes), ok)

    def end(self, run_id: str, status: str) -> None:
        self._call("end", run_id, status)

    def _call(self, method: str, *arguments: object) -> Any:
        """Raises: TrackingError with the store's words where it refuses."""
        if self._own is None:
            try:
                return _ask(self._at, method, arguments)
            except (OSError, EOFError) as error:
                _log.info("tracking: the pipeline's process does not answer (%r): opening the store here", error)
        with self._opening:
            if self._own is None:
                self._own = self._instead()
        return getattr(self._own, method)(*arguments)


def _ask(at: str, method: str, arguments: tuple[object, ...]) -> Any:
    with Client(at, family="AF_UNIX") as connection:
        connection.send((method, arguments))
        if not connection.poll(PATIENCE_SECONDS):
            raise TimeoutError(f"{at}: no answer in {PATIENCE_SECONDS:.0f} s")
        done, result = connection.recv()
    if not done:
        raise TrackingError(result)
    return result


@contextmanager
def shared(writer: Writer) -> Iterator[str | None]:
    """Within, processes of this user may use `writer` by the address; None where no socket can be had."""
    with ExitStack() as stack:
        try:
            # A folder of its own, which only this user may enter.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rlpipe-"))
            listener = stack.enter_context(Listener(f"{folder}/mlflow", family="AF_UNIX", backlog=_BACKLOG))
        except OSError as error:  # such as a TMPDIR too long for a socket
            _log.warning("tracking: every stage opens the store by itself: %s", error)
            yield None
            return
        at = str(listener.address)
        closing = threading.Event()
        thread = threading.Thread(target=_listen, args=(listener, writer, closing), name="mlflow", daemon=True)
        thread.start()
        try:
            yield at
        finally:
            closing.set()
            Client(at, family="AF_UNIX").close()  # closing a socket does not wake who waits at it
            thread.join()


def _listen(listener: Listener, writer: Writer, closing: threading.Event) -> None:
    while True:
        connection = listener.accept()
        if closing.is_set():
            connection.close()
            return
        threading.Thread(target=_answer, args=(connection, writer), daemon=True).start()


def _answer(connection: Connection, writer: Writer) -> None:
    """Answer one call; who asked may be gone by now, which is no matter here."""
    with connection:
        try:
            method, arguments = connection.recv()
            answer: tuple[bool, Any]
            try:
                answer = True, getattr(writer, method)(*arguments)
            except Exception as error:  # whatever the store's database or server throws is for who asked
                answer = False, str(error).strip() or type(error).__name__
            connection.send(answer)
        except (OSError, EOFError) as error:
            _log.debug("tracking: a stage hung up: %r", error)
