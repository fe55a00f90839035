"""A process that has imported what stages import, and forks itself for each stage that asks.

Importing torch, transformers and a stage costs five seconds of CPU, as much as many a small stage takes; a fork costs
nothing. A pipeline keeps one such process a workspace; what a stage does there it does like any other process of its
own, in a process group of its own.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from rlpipe.environment import importing
from rlpipe.handover import Order, Refusal, received
from rlpipe.helper import taken_over

_PR_SET_PDEATHSIG = 1  # of prctl(2)


@dataclass
class _Stage:
    """A forked process, a descriptor that is readable once it has ended, and who waits for it."""

    pid: int
    ended: int
    client: Connection


class _Sources:
    """The files of rlpipe that this process has imported since `began`, in nanoseconds of the system's clock."""

    def __init__(self, began: int) -> None:
        files = {getattr(module, "__file__", None) for name, module in sys.modules.items() if _is_ours(name)}
        self._began, self._seen = began, {file: _state(file) for file in files if file is not None}

    def changed(self) -> str | None:
        """One that may be another than the imported one; None when all are the same."""
        return next((file for file, state in self._seen.items() if self._may_differ(file, state)), None)

    def _may_differ(self, file: str, seen: tuple[int, int] | None) -> bool:
        state = _state(file)
        return state is None or state != seen or state[0] >= self._began


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "rlpipe"


def _state(file: str) -> tuple[int, int] | None:
    """When it was written, and how long it is; None where it is gone."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class _Server:
    """Takes orders, one at a time and without threads, because it forks."""

    def __init__(self, listening: socket.socket, sources: _Sources) -> None:
        self._listening, self._sources = listening, sources
        self._selector = selectors.DefaultSelector()
        self._stages: list[_Stage] = []
        self._selector.register(listening, selectors.EVENT_READ, self._accept)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._close)
        self._open = True

    def serve(self) -> Order | None:
        """Returns: in a forked process its order; in this one None, when nobody can ask any more and all is done."""
        while self._open or self._stages:
            # One event at a time: what it leads to may make others void.
            (key, _), *_ = self._selector.select()
            react: Callable[[], Order | None] = key.data
            if order := react():
                return order
        return None

    def _close(self) -> None:
        """The pipeline is gone. Stages that run go on: they may be about to finish. Nobody is to wait for an answer."""
        self._open = False
        self._selector.unregister(sys.stdin.fileno())
        self._selector.unregister(self._listening)
        self._listening.close()

    def _accept(self) -> Order | None:
        accepted, _ = self._listening.accept()
        try:
            order, streams, client = received(accepted)
        except (OSError, EOFError):
            accepted.close()  # who asked was killed
            return None
        try:
            if file := self._sources.changed():
                _answer(client, Refusal(f"{file} has changed since the pipeline was started."))
                client.close()
                return None
            here = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._forget(client)
                _become(order, streams, here)
                return order
        finally:
            for stream in streams:
                os.close(stream)
        os.setpgid(pid, pid)
        self._watch(_Stage(pid, os.pidfd_open(pid), client))
        return None

    def _watch(self, stage: _Stage) -> None:
        self._stages.append(stage)
        self._selector.register(stage.ended, selectors.EVENT_READ, lambda: self._reap(stage))
        self._selector.register(stage.client, selectors.EVENT_READ, lambda: self._hear(stage))
        _answer(stage.client, "started")

    def _hear(self, stage: _Stage) -> None:
        """A signal for the stage; or its client was killed, and so it is."""
        try:
            number = stage.client.recv()
        except (OSError, EOFError):
            number = signal.SIGKILL
            self._selector.unregister(stage.client)
        os.killpg(stage.pid, number)

    def _reap(self, stage: _Stage) -> None:
        _, status = os.waitpid(stage.pid, 0)
        self._selector.unregister(stage.ended)
        os.close(stage.ended)
        self._stages.remove(stage)
        with suppress(KeyError):  # the client was killed, and heard of
            self._selector.unregister(stage.client)
        _answer(stage.client, os.waitstatus_to_exitcode(status))
        stage.client.close()

    def _forget(self, client: Connection) -> None:
        """In a forked process: whatever the others are waited for by."""
        self._selector.close()
        self._listening.close()
        client.close()
        for stage in self._stages:
            stage.client.close()
            os.close(stage.ended)


def _answer(client: Connection, answer: object) -> None:
    """Tell who asked. Where that process is gone, the end of its connection is heard like any other event."""
    with suppress(OSError):
        client.send(answer)


def _become(order: Order, streams: list[int], parent: int) -> None:
    """In a forked process: what a process is that was started with the order's command."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we had said that we follow it
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(order.environ)
    os.chdir(order.cwd)


def _import_stages() -> None:
    from rlpipe.stages.runner import STAGES

    for name in STAGES:
        import_module(f"rlpipe.stages.{name}")


def main() -> None:
    """Serve as `helper` says, in the workspace that we stand in."""
    began = time.time_ns()
    # Nobody interrupts this process; a forked one hears of it from where `_work` knows what to do about it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    listening, folder = taken_over(sys.argv)
    with importing():
        _import_stages()
    order = _Server(listening, _Sources(began)).serve()
    if order is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    _work(order)


def _work(order: Order) -> None:
    """In a forked process, to its end."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        from rlpipe.cli import main as rlpipe

        rlpipe(order.argv)
    except KeyboardInterrupt:
        # As Python ends a process that was not forked.
        traceback.print_exc()
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
