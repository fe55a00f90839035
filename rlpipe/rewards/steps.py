"""The steps of a response and whether each is right: what a process reward model learns to tell.

A step is a written calculation such as `3+6=9`, or the answer at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rlpipe.rewards.math_answer import math_answer
from rlpipe.types import Task

_NUMBER = r"-?\d+(?:\.\d+)?"
_CALCULATION = re.compile(rf"({_NUMBER})\s*([-+*/])\s*(\d+(?:\.\d+)?)\s*=\s*({_NUMBER})")
_ANSWER = re.compile(r"<answer>[^<]*</answer>|####\s*\S+")


@dataclass(frozen=True)
class Step:
    """`end` is the number of characters up to and including the step."""

    end: int
    is_right: bool


def judged_steps(task: Task, text: str) -> list[Step]:
    """The steps of `text` in order: a calculation is right if its arithmetic is, the answer if it is the task's."""
    steps = [Step(found.end(), _holds(*found.groups())) for found in _CALCULATION.finditer(text)]
    answer = _ANSWER.search(text)
    if answer is not None:
        steps.append(Step(answer.end(), math_answer([task], [text]) == [1.0]))
    return sorted(steps, key=lambda step: step.end)


def step_ends(text: str) -> list[int]:
    """Where the steps of `text` end, in characters; nobody's answer is needed to see that."""
    answers = [found.end() for found in [_ANSWER.search(text)] if found is not None]
    return sorted([found.end() for found in _CALCULATION.finditer(text)] + answers)


def _holds(left: str, sign: str, right: str, result: str) -> bool:
    a, b = Fraction(left), Fraction(right)
    if sign == "/":
        return b != 0 and a / b == Fraction(result)
    return {"+": a + b, "-": a - b, "*": a * b}[sign] == Fraction(result)
