"""The process that runs the tests: dataset code and nothing of the candidate's.

The names of the candidate's functions stand for calls: the arguments go out as plain values, and what comes back
is decoded to exact built-in types before a test sees it. So no object of the candidate's, with its own idea of
equality, is ever compared here, and no exception class of its making passes through a test.

Starting an interpreter takes longer than most tests, so one evaluator serves many jobs: each in a child of its own,
forked from a process in which no test has ever run.
"""

from __future__ import annotations

import builtins
import os
import sys

from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.guest.start import announce, confine, private_channel, steady

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class CandidateError(Exception):
    """The candidate raised an exception that is no built-in one."""


class _Supervisor:
    """The other end of the two pipes, and how many calls were asked of it."""

    def __init__(self, requests: int, replies: int, value_bytes: int) -> None:
        self.requests, self.replies, self.value_bytes = requests, replies, value_bytes
        self.calls = 0

    def finish(self, outcome: bytes, reason: str = "") -> NoReturn:
        """The last word. Nothing that a test does can come after it."""
        wire.write_frame(self.replies, outcome, reason[:300].encode("utf-8", "replace"))
        os._exit(0)

    def ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The candidate's answer. Raises: the built-in exception that it raised, or CandidateError."""
        request = self._encoded(name, args, kwargs)
        self.calls += 1
        wire.write_frame(self.replies, wire.ASK, request)
        reply = wire.read_frame(self.requests)
        try:
            value = wire.decode(reply[1:])
            if reply[:1] == wire.VALUE:
                return value
            kind, said = value
            error = _exception(kind, said)
        except (wire.NotPlainError, TypeError, ValueError) as broken:
            self.finish(wire.FAILED, f"the reply of {name}() is no plain value: {broken}")
        raise error

    def _encoded(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        try:
            return wire.encode([name, list(args), kwargs], self.value_bytes)
        except wire.NotPlainError as error:
            # A type is the dataset's doing; a size may come from what the candidate returned before.
            of_data = isinstance(error, wire.WrongTypeError) or not self.calls
            self.finish(wire.BROKEN if of_data else wire.FAILED, f"an argument of {name}() cannot be sent: {error}")


class _Proxy:
    """Stands for a function of the candidate's."""

    def __init__(self, name: str, supervisor: _Supervisor) -> None:
        self._name, self._supervisor = name, supervisor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._supervisor.ask(self._name, args, kwargs)

    def __getattr__(self, attribute: str) -> Any:
        # Tests may say `math.isclose` without an import, because the program they were written for has one.
        if self._name in sys.stdlib_module_names:
            return getattr(__import__(self._name), attribute)
        raise AttributeError(f"{self._name}.{attribute}: tests can call the solution's functions, nothing else of it")


class _Names(dict[str, object]):
    """The tests' globals, in which a name that nobody defined is one of the candidate's, if it may be.

    It may be one of `functions`; where the dataset names none, any that is no built-in.
    """

    def __init__(self, supervisor: _Supervisor, functions: list[str]) -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self.supervisor, self.functions = supervisor, functions

    def __missing__(self, name: str) -> object:
        if not self.functions and not hasattr(builtins, name):
            return _Proxy(name, self.supervisor)
        if name in sys.stdlib_module_names:
            return __import__(name)
        raise KeyError(name)


def main(limits: dict[str, int], value_bytes: int) -> None:
    """Takes jobs, one at a time, until the supervisor closes the requests or kills this process."""
    requests, replies = private_channel()
    confine(limits)
    announce(replies)
    while True:
        try:
            job = wire.read_frame(requests)
        except EOFError:
            os._exit(0)
        child = os.fork()
        if child == 0:
            _run(_Supervisor(requests, replies, value_bytes), *wire.decode(job))
        _, status = os.waitpid(child, 0)
        if status:
            wire.write_frame(replies, wire.DIED, f"status {status}".encode())


def _run(supervisor: _Supervisor, preamble: str, setup: str, tests: list[str], functions: list[str]) -> NoReturn:
    """Runs the tests and says how it went. Only a run to the end of every test, with a call in it, is a pass."""
    names = _Names(supervisor, functions)
    try:
        for source in (preamble, setup, *tests):
            steady(source)
        _define(names, preamble)
        exec(compile(setup, "<setup>", "exec", dont_inherit=True), names)
        # What the prompt defines is the dataset's, but for the functions that it asks for.
        names.update({name: _Proxy(name, supervisor) for name in functions})
        for source in tests:
            exec(compile(source, "<tests>", "exec", dont_inherit=True), names)
        check = names.get("check")
        if callable(check) and functions:
            check(_Proxy(functions[0], supervisor))
    except BaseException as error:
        # Before the first call nothing of the candidate's was here, so that an error is the dataset's.
        supervisor.finish(wire.FAILED if supervisor.calls else wire.BROKEN, _told(error))
    if not supervisor.calls:
        supervisor.finish(wire.BROKEN, "the tests call nothing of the solution")
    supervisor.finish(wire.PASSED)


def _define(names: _Names, preamble: str) -> None:
    try:
        code = compile(preamble, "<prompt>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # a prompt that ends inside of a function defines nothing
        return
    exec(code, names)


def _told(error: BaseException) -> str:
    """The error and its place in the tests."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<tests>":
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    place = f"line {lines[-1]} of the tests: " if lines else ""
    return f"{place}{type(error).__name__} {str(error)[:200]}".rstrip()


def _exception(kind: str, said: str) -> Exception:
    """The built-in exception of that name, or a stand-in for one of the candidate's own."""
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(said)
        except TypeError:  # UnicodeDecodeError wants five arguments
            pass
    return CandidateError(f"{kind}: {said}")
