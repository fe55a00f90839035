"""Between a candidate and its tests: relays calls, holds both to the rules, and gives the verdict.

Candidate and tests are in a sandbox each, and this is the only way between them. What passes through here is
counted and measured, but never decoded.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType

from rlpipe.sandbox.errors import GuestFault, MachineFault
from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.guests import Guest, Level
from rlpipe.sandbox.jobs import CallTests, Job, OutputTests, Verdict
from rlpipe.sandbox.limits import Limits

_UNBOUNDED = 1 << 31  # our own texts, on their way into a sandbox
_OVERHEAD = 1 << 10  # of a message, beside its value


class _Failed(Exception):  # noqa: N818 - an outcome
    """The program does not pass; says why."""


class _Unknown(Exception):  # noqa: N818 - an outcome
    """Nobody can say whether the program is right; says why."""


class Bench:
    """A worker's place: where jobs are judged one after the other, with one evaluator for as long as it is sound.

    As a context it leaves no process behind. To be used by the thread that made it: a sandbox dies with the thread
    that started it.
    """

    def __init__(self, level: Level, limits: Limits) -> None:
        self.level, self.limits = level, limits
        self._tests: Guest | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._dismiss()

    def judge(self, job: Job) -> Verdict:
        """Runs one program against its tests; its sandbox is gone when this returns."""
        calls = _Counter()
        try:
            if isinstance(job, CallTests):
                self._judge_calls(job, calls)
            else:
                _judge_outputs(job, self.level, self.limits, calls)
        except _Failed as failed:
            return Verdict(False, str(failed), self.level, calls.answered)
        except (_Unknown, MachineFault) as unknown:
            return Verdict(None, str(unknown), self.level, calls.answered)
        return Verdict(True, "", self.level, calls.answered)

    def _judge_calls(self, job: CallTests, calls: _Counter) -> None:
        """Returns where the program passes. Raises: _Failed, _Unknown, MachineFault."""
        limits = self.limits
        with Guest("candidate", self.level, limits, value_bytes=limits.output_bytes) as candidate:
            tests = self._evaluator()
            candidate.ready()
            deadline = time.monotonic() + limits.wall_s
            _ask(candidate, wire.LOAD, wire.encode(list(job.sources), _UNBOUNDED), deadline, limits)
            try:
                last_word = _relay(job, tests, candidate, deadline, limits, calls)
            except BaseException:
                self._dismiss()  # it waits for an answer that will not come, or is no more
                raise
            _conclude(last_word, calls)
            _expect_silence(candidate)

    def _evaluator(self) -> Guest:
        if self._tests is None:
            # It forks, once a job; and it holds nothing but the dataset's code.
            limits = replace(self.limits, fork=True)
            self._tests = Guest("evaluator", self.level, limits, value_bytes=limits.output_bytes)
            try:
                self._tests.ready()
            except BaseException:
                self._dismiss()
                raise
        return self._tests

    def _dismiss(self) -> None:
        if self._tests is not None:
            self._tests.close()
            self._tests = None


class _Counter:
    """How many calls were asked and how many answered."""

    def __init__(self) -> None:
        self.asked = self.answered = 0


# ---- calls ----------------------------------------------------------------------------------------------


def _relay(job: CallTests, tests: Guest, candidate: Guest, deadline: float, limits: Limits, calls: _Counter) -> bytes:
    """Carries calls from the tests to the candidate and answers back; returns the tests' last word.

    Raises: _Failed, _Unknown.
    """
    task = [job.preamble, job.setup, list(job.tests), list(job.functions)]
    with _blaming_tests(calls):
        tests.send(wire.frame(wire.encode(task, _UNBOUNDED)), deadline)
    while True:
        with _blaming_tests(calls):
            message = tests.receive(deadline, limits.output_bytes + _OVERHEAD)
            if message[:1] == wire.DIED:
                raise GuestFault("the process died")
        if message[:1] != wire.ASK:
            return message
        calls.asked += 1
        reply = _ask(candidate, wire.CALL, message[1:], deadline, limits)
        calls.answered += 1
        with _blaming_tests(calls):
            tests.send(wire.frame(*reply), deadline)


def _conclude(message: bytes, calls: _Counter) -> None:
    """Raises: _Failed or _Unknown, unless the tests say that all of them held, after a call at least."""
    outcome, said = message[:1], message[1:].decode("utf-8", "replace")
    if outcome == wire.BROKEN:
        raise _Unknown(f"the tests are at fault: {said}")
    if outcome != wire.PASSED:
        raise _Failed(said)
    if not calls.answered:
        raise _Unknown("the tests are at fault: they call nothing of the solution")


def _ask(candidate: Guest, kind: bytes, body: bytes, deadline: float, limits: Limits) -> tuple[bytes, bytes]:
    """(VALUE or RAISED, encoded value) that the candidate answers to one request.

    The request has a number that nobody can know before, and nothing may stand in the pipe when it is asked: what
    was sent in advance answers nothing.
    Raises: _Failed for every other kind of answer.
    """
    _expect_silence(candidate)
    nonce = secrets.token_bytes(wire.NONCE_BYTES)
    with _blaming_candidate():
        candidate.send(wire.frame(nonce, kind, body), deadline)
        reply = candidate.receive(deadline, limits.output_bytes + _OVERHEAD)
    number, answer, value = reply[: len(nonce)], reply[len(nonce) : len(nonce) + 1], reply[len(nonce) + 1 :]
    if number != nonce:
        raise _Failed("it sent a reply to another request than the one that it was asked")
    if answer == wire.LEFT:
        raise _Failed(f"it raised {_quoted(value)}")
    if answer == wire.UNPLAIN:
        raise _Failed(f"it returned something else than plain data: {_quoted(value)}")
    if answer not in (wire.VALUE, wire.RAISED):
        raise _Failed("it sent a reply of no known kind")
    return answer, value


def _expect_silence(candidate: Guest) -> None:
    """Raises: _Failed where the candidate said something unasked, or is no longer there."""
    with _blaming_candidate():
        if not candidate.silent():
            raise _Failed("it sent bytes that nobody had asked for")


@contextmanager
def _blaming_candidate() -> Iterator[None]:
    """A fault of the candidate's process fails the program."""
    try:
        yield
    except GuestFault as fault:
        raise _Failed(f"in the solution: {fault}") from None


@contextmanager
def _blaming_tests(calls: _Counter) -> Iterator[None]:
    """A fault of the tests' process is theirs before the first call; after it, a value may have caused it."""
    try:
        yield
    except GuestFault as fault:
        if calls.asked:
            raise _Failed(f"in the tests: {fault}") from None
        raise _Unknown(f"the tests are at fault: {fault}, before the first call") from None


def _quoted(said: bytes) -> str:
    """A program's own words, short and on one line."""
    text = said[:400].decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else " " for sign in text[:200])


# ---- standard input and output --------------------------------------------------------------------------


def _judge_outputs(job: OutputTests, level: Level, limits: Limits, calls: _Counter) -> None:
    """Returns where every case holds. Raises: _Failed at the first that does not, _Unknown, MachineFault."""
    if not job.cases:
        raise _Unknown("the tests are at fault: there are none")
    for at, (given, expected) in enumerate(job.cases, 1):
        calls.asked += 1
        try:
            said = _output(job.source, given, level, limits)
        except GuestFault as fault:
            raise _Failed(f"test {at} of {len(job.cases)}: {fault}") from None
        if normalised(said) != normalised(expected):
            raise _Failed(f"test {at} of {len(job.cases)}: another output than expected")
        calls.answered += 1


def normalised(text: str) -> str:
    """`text` without the white space at the ends of its lines, and without empty lines at its end."""
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip()


def _output(source: str, given: str, level: Level, limits: Limits) -> str:
    """What the program writes to standard output. Raises: GuestFault where it dies, or writes or takes too much."""
    with Guest("program", level, limits) as guest:
        guest.ready()
        deadline = time.monotonic() + limits.wall_s
        guest.send(wire.frame(wire.encode(source, _UNBOUNDED)), deadline)
        said, status = guest.exchange(given.encode("utf-8", "surrogatepass"), deadline, limits.output_bytes)
    if status:
        raise GuestFault(f"exit status {status}")
    return said.decode("utf-8", "replace")
