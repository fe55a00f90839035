"""One guest: a process in a sandbox of its own, from its start to the certainty that nothing of it is left."""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Literal

from rlpipe.sandbox import bubblewrap, seccomp
from rlpipe.sandbox.errors import GuestFault, MachineFault
from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.limits import Limits

Role = Literal["candidate", "evaluator", "program", "probe"]
Level = Literal["bubblewrap", "process"]

START_S = 60.0  # for a sandbox to come up, on a machine under load
_END_S = 30.0
_CHUNK = 1 << 16
_GUEST = Path(__file__).parent / "guest"

# Reads the modules of its role as code objects from standard input, and starts the last one.
_BOOT = """\
import marshal, os, sys
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or sys.exit("no guest came")
    return data
modules, settings = marshal.loads(read(int.from_bytes(read(4), "big")))
sys.modules["rlpipe.sandbox.guest"] = type(sys)("rlpipe.sandbox.guest")
for name, code in modules:
    sys.modules[name] = type(sys)(name)
    exec(code, sys.modules[name].__dict__)
sys.modules[name].main(**settings)
"""


class Guest:
    """A running guest. As a context it ends with nothing of it left, whatever it did.

    Raises (on creation): MachineFault where no process can be started; SandboxError where a program is missing.
    """

    def __init__(self, role: Role, level: Level, limits: Limits, **settings: Any) -> None:
        self._buffer = bytearray()
        self._first: int | None = None  # a descriptor of the sandbox's first process
        self._info, info_fd = os.pipe()
        try:
            self._process = _started(level, limits, info_fd)
        except BaseException as error:
            os.close(self._info)
            if isinstance(error, OSError):
                raise MachineFault(f"no process for a sandbox: {error}") from error
            raise
        finally:
            os.close(info_fd)
        self._stdin, self._stdout, self._stderr = self._streams()
        for fd in (self._stdin, self._stdout, self._stderr, self._info):
            os.set_blocking(fd, False)
        resources = limits.resources(own_user_namespace=level == "bubblewrap")
        self._boot = wire.frame(marshal.dumps((_modules(role), {"limits": resources, **settings})))

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def ready(self) -> None:
        """Waits until the sandbox stands and the guest is in it. Raises: MachineFault where it does not come up."""
        deadline = time.monotonic() + START_S
        try:
            self.send(self._boot, deadline)
            said = self.receive(deadline, len(wire.READY))
        except GuestFault as fault:
            raise MachineFault(f"the sandbox did not come up: {fault}; {self._complaint()}".rstrip("; ")) from None
        if said != wire.READY:
            raise MachineFault(f"the sandbox said {said!r} and not that it is ready")
        self._first = self._first_process()

    def send(self, data: bytes, deadline: float) -> None:
        """Writes to the guest's standard input. Raises: GuestFault where it is gone, or past the deadline."""
        rest = memoryview(data)
        while rest:
            _wait(self._stdin, select.POLLOUT, deadline)
            rest = rest[self._write_some(rest) :]

    def end_input(self) -> None:
        """Closes the guest's standard input."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def receive(self, deadline: float, most: int) -> bytes:
        """The next frame. Raises: GuestFault where the guest is gone, late, or announces more than `most` bytes."""
        size = int.from_bytes(self._take(4, deadline), "big")
        if size > most:
            raise GuestFault(f"a message of {size} bytes, where {most} are the most")
        return self._take(size, deadline)

    def silent(self) -> bool:
        """Whether nothing has come from the guest that was not received. Raises: GuestFault where it is gone."""
        if not self._buffer:
            self._read_some()
        return not self._buffer

    def exchange(self, given: bytes, deadline: float, most: int) -> tuple[bytes, int]:
        """(everything that the guest writes, its exit status, above 128 by a signal), after giving it its input.

        It ends with the process, whoever else may hold the pipes.
        Raises: GuestFault past the deadline, or above `most` bytes.
        """
        ended = os.pidfd_open(self._process.pid)
        try:
            said = self._exchange(memoryview(given), ended, deadline, most)
        finally:
            os.close(ended)
        state = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        assert state is not None
        return said, state.si_status if state.si_code == os.CLD_EXITED else 128 + state.si_status

    def close(self) -> None:
        """Kills what is left of the guest and waits until it is gone. Idempotent."""
        if self._process.returncode is not None:
            return
        gone = False
        try:
            gone = self._first is not None and self._end_namespace(self._first)
        finally:
            if not gone:
                # The leader is not yet waited for, so that its number still names this group and no other.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self.end_input()
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
            os.close(self._info)

    def _streams(self) -> tuple[int, int, int]:
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        stdin, stdout, stderr = [stream.fileno() for stream in streams if stream is not None]
        return stdin, stdout, stderr

    def _end_namespace(self, first: int) -> bool:
        """Kills a process namespace by its first process, which dies last: when that is gone, all are.

        The processes of bwrap outside of it then end by themselves, each waiting for the one that it started.
        Returns whether they did.
        """
        leader = os.pidfd_open(self._process.pid)
        deadline = time.monotonic() + _END_S
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(first, signal.SIGKILL)
            for process in (first, leader):
                _wait(process, select.POLLIN, deadline)
        except GuestFault:
            return False
        finally:
            os.close(leader)
            os.close(first)
        return True

    def _first_process(self) -> int | None:
        """A descriptor of the sandbox's first process, None without a sandbox or where it has ended already."""
        with contextlib.suppress(BlockingIOError, ProcessLookupError):
            found = re.search(rb'"child-pid":\s*(\d+)', os.read(self._info, _CHUNK))
            return os.pidfd_open(int(found[1])) if found else None
        return None

    def _exchange(self, rest: memoryview, ended: int, deadline: float, most: int) -> bytes:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self._stdout, select.POLLIN)
        poll.register(self._stdin, select.POLLOUT)
        writing = True
        while True:
            ready = {fd for fd, _ in poll.poll(max(deadline - time.monotonic(), 0) * 1000)}
            if not ready:
                raise GuestFault("out of time")
            if self._stdout in ready and not self._read_more(most):
                poll.unregister(self._stdout)
            if writing and (self._stdin in ready or not rest):
                rest = self._rest_after_write(rest)
                if not rest:
                    writing = False
                    poll.unregister(self._stdin)
                    self.end_input()
            if ended in ready:
                while self._read_more(most):
                    pass
                return bytes(self._buffer)

    def _read_more(self, most: int) -> bool:
        """Whether there was more to read."""
        before = len(self._buffer)
        with contextlib.suppress(GuestFault):
            self._read_some()
        if len(self._buffer) > most:
            raise GuestFault(f"more than {most} bytes of output")
        return len(self._buffer) > before

    def _rest_after_write(self, rest: memoryview) -> memoryview:
        """What is left to write; nothing where nobody reads."""
        try:
            return rest[self._write_some(rest) :]
        except GuestFault:
            return rest[:0]

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise GuestFault("the process ended") from None

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            _wait(self._stdout, select.POLLIN, deadline)
            self._read_some()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _read_some(self) -> None:
        try:
            data = os.read(self._stdout, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            raise GuestFault("the process ended")
        self._buffer += data

    def _complaint(self) -> str:
        with contextlib.suppress(BlockingIOError, GuestFault):
            _wait(self._stderr, select.POLLIN, time.monotonic() + 1)
            return os.read(self._stderr, 2000).decode("utf-8", "replace").strip()
        return ""


def _started(level: Level, limits: Limits, info_fd: int) -> subprocess.Popen[bytes]:
    runtime = bubblewrap.this_runtime()
    python = [str(runtime.python), *bubblewrap.PYTHON_FLAGS, "-c", _BOOT]
    if level == "process":
        return _popen(python, ())
    filter_fd, write_fd = os.pipe()
    try:
        with os.fdopen(write_fd, "wb") as pipe:
            pipe.write(_filter(limits.fork))
        sandbox = bubblewrap.command(runtime, tmp_mb=limits.tmp_mb, filter_fd=filter_fd, info_fd=info_fd)
        return _popen([*sandbox, *python], (filter_fd, info_fd))
    finally:
        os.close(filter_fd)


def _popen(words: list[str], pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """With an empty environment before bwrap even begins: what it drops itself stays readable in /proc/1/environ."""
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={},
        cwd="/",
        pass_fds=pass_fds,
        start_new_session=True,
    )


@functools.cache
def _filter(fork: bool) -> bytes:
    return seccomp.bpf(fork=fork)


@functools.cache
def _modules(role: Role) -> tuple[tuple[str, CodeType], ...]:
    """The modules that a role needs, compiled here, in the order of their imports."""
    return tuple(
        (
            f"rlpipe.sandbox.guest.{name}",
            compile((_GUEST / f"{name}.py").read_text(encoding="utf-8"), f"<{name}>", "exec", dont_inherit=True),
        )
        for name in ("wire", "start", role)
    )


def _wait(fd: int, event: int, deadline: float) -> None:
    """Until `fd` is ready, or its other end is gone. Raises: GuestFault past the deadline."""
    poll = select.poll()
    poll.register(fd, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise GuestFault("out of time")
