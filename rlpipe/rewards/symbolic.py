"""Are two expressions the same? By the math-verify library, in a process that cannot take this one down.

The library's own timeouts are signals: they fail outside of the main thread and do not stop a computation in C code,
such as a tower of powers. Here a comparison has three seconds of processor time and two gigabytes, and whatever
exceeds them ends with its process. Only the library's LaTeX reader is used: its other one evaluates Python.
"""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

from rlpipe.errors import RewardError

_WORKER = Path(__file__).with_name("symbolic_worker.py")
_CPU_S = 3.0
_START_S = 120.0
_ANSWER_S = 60.0
_LONGEST = 300

_COMMAND = re.compile(r"\\[a-zA-Z]+|\\.")
_LABEL = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_MATRIX = re.compile(r"\\(?:begin|end)\{[a-z]?matrix\}")
_CHOICE = re.compile(r"\b(?:or|and|either|maybe)\b|≈|\\approx", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]{2,}")
_FUNCTIONS = frozenset(
    """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt pi
    """.split()  # noqa: SIM905 - read as a list of words
)
_EQUALS = re.compile(r"(?<![<>!\\])=")
_AROUND = (("**", "**"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"))
_NAME = re.compile(r"\s*[a-zA-Z](?:_\{?\w+\}?)?(?:\([a-zA-Z]\))?\s*")


class Undecided(Exception):  # noqa: N818 - a verdict, handled by who asks
    """The comparison was not made, for no fault of the expressions."""


def expression(text: str) -> str | None:
    """`text` as one expression fit to be compared; None for prose, alternatives, or an equation between numbers."""
    text = unwrapped(text)
    if not text or len(text) > _LONGEST or "\n" in text or "$" in text or "\\boxed" in text or not _balanced(text):
        return None
    bare = _MATRIX.sub(" ", _LABEL.sub(" ", text))
    if _CHOICE.search(text) or any(w not in _FUNCTIONS for w in _WORDS.findall(_COMMAND.sub(" ", bare))):
        return None
    left, *rest = _EQUALS.split(text)
    if len(rest) > 1 or (rest and not re.search("[a-zA-Z]", _COMMAND.sub(" ", left))):
        return None
    return text


def answers(answer: str, gold: str) -> bool:
    """Whether `answer` may be set against `gold`: an equation answers an expression only by naming it, `x = …`."""
    left, *right = _EQUALS.split(answer)
    return not right or len(_EQUALS.split(gold)) > 1 or _NAME.fullmatch(left) is not None


def unwrapped(text: str) -> str:
    """The text without a final period and without the marks of mathematics or emphasis around it."""
    while True:
        text = text.strip().removesuffix(".").strip()
        inner = next(
            (text[len(left) : len(text) - len(right)] for left, right in _AROUND if _stands(text, left, right)), ""
        )
        if not inner.strip():
            return text
        text = inner


def _stands(text: str, left: str, right: str) -> bool:
    """Whether the marks stand around the whole text, and not each around a part of it."""
    inner = text[len(left) : len(text) - len(right)]
    return text.startswith(left) and text.endswith(right) and left not in inner and _balanced(inner)


@lru_cache(maxsize=65536)
def readable(gold: str) -> bool:
    """Whether math-verify reads the expression. Raises: Undecided; RewardError if there is no math-verify."""
    return _asked(gold, None)["readable"]


@lru_cache(maxsize=65536)
def equal(gold: str, answer: str) -> bool:
    """Whether two expressions are the same; one that needs too much to be compared is another one.

    Raises: Undecided; RewardError if there is no math-verify.
    """
    return _asked(gold, answer)["equal"]


def _balanced(text: str) -> bool:
    depth = 0
    for char in text.replace("\\{", "").replace("\\}", ""):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth < 0:
            return False
    return depth == 0


class _Worker:
    """The process, one question at a time; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: bytes) -> bytes | None:
        """The answer, or None if the process ended over it. Raises: Undecided, RewardError."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._end()
            process = self._process = self._process or _started()
            assert process.stdin is not None
            try:
                process.stdin.write(question)
                answer = _line(process, _ANSWER_S)
            except BrokenPipeError:
                answer = b""
            except BaseException:
                self._end()
                raise
            if answer is None:
                self._end()
                raise Undecided(f"the comparison has not answered within {_ANSWER_S:g} s")
            if not answer.endswith(b"\n"):
                code = process.wait()
                self._end()
                if code in (-signal.SIGKILL, -signal.SIGTERM):
                    raise Undecided("the comparing process was ended from outside")
                return None
            return answer

    def _end(self) -> None:
        """Leave nothing of the process behind."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _started() -> subprocess.Popen[bytes]:
    # -P: what stands beside the worker's file, such as http.py, must not be imported in place of the library's.
    process = subprocess.Popen(
        [sys.executable, "-P", str(_WORKER), str(_CPU_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    if _line(process, _START_S) != b"\n":
        process.kill()
        process.communicate()
        raise RewardError(
            "math_answer: math-verify does not start, and expressions cannot be compared without it. "
            "Reinstall it: pip install -c constraints.txt math-verify."
        )
    return process


def _line(process: subprocess.Popen[bytes], patience_s: float) -> bytes | None:
    """A line, a part of one if the process has ended, or None if nothing came. Lines are written whole."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], patience_s)
    return process.stdout.readline() if ready else None


_WORKER_PROCESS = _Worker()


def _asked(gold: str, answer: str | None) -> dict[str, bool]:
    question = json.dumps({"gold": gold, "answer": answer}).encode() + b"\n"
    reply = _WORKER_PROCESS.ask(question)
    return {"readable": False, "equal": False} if reply is None else json.loads(reply)
