"""A judge that is a program: it grades the working of a chain of additions and subtractions by a rubric."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlpipe.rewards.format import parts
from rlpipe.rewards.judges.base import Pair, PairVerdict, Verdict, by_score

_TERM = re.compile(r"([+-]?)(\d+)")
_QUESTION = re.compile(r"\d+([+-]\d+)+")
_STEP = re.compile(r"(-?\d+)([+-])(\d+)=(-?\d+)")

# Shares of the score. The working weighs most: an answer without it cannot be checked without a gold answer.
RUBRIC: Mapping[str, float] = {"format": 0.1, "arithmetic": 0.4, "follows": 0.3, "answer": 0.2}


@dataclass(frozen=True)
class Step:
    """A stated step `left sign operand = result`."""

    left: int
    sign: str
    operand: int
    result: int

    @property
    def text(self) -> str:
        return f"{self.left}{self.sign}{self.operand}={self.result}"

    @property
    def is_right(self) -> bool:
        return self.result == (self.left + self.operand if self.sign == "+" else self.left - self.operand)


@dataclass(frozen=True)
class RubricJudge:
    """Grades a response to a prompt such as `7+12-4`, without knowing its answer.

    0 outside of the visible format. Within it, the sum over RUBRIC of weight times:
        format      1;
        arithmetic  share of the steps whose arithmetic is right;
        follows     share of the steps that take the next term of the question to the result before;
        answer      1 if the answer repeats the last step's result, else 0.
    Shares are of the steps stated or the steps needed, whichever are more, so that neither leaving steps out
    nor adding true but idle ones pays. Only a right answer with its whole working scores 1.

    Attributes:
        tie_margin: of `by_score`, where it compares.
    """

    tie_margin: float = 0.0

    def score(self, prompt: str, response: str) -> Verdict:
        """Missing where the prompt is no chain of additions and subtractions."""
        if _QUESTION.fullmatch(prompt.strip()) is None:
            return Verdict(None, "the rubric judge grades chains such as 7+12-4 only")
        return Verdict(sum(RUBRIC[item] * grade for item, grade in grades(prompt, response).items()))

    def scores(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Each by itself."""
        return [self.score(prompt, response) for prompt, response in items]

    def choices(self, pairs: Sequence[Pair]) -> list[PairVerdict]:
        """The higher grade wins. A program does not see the order, so both orders have the same verdict."""
        return [
            by_score(
                self.score(pair.prompt, pair.first), self.score(pair.prompt, pair.second), tie_margin=self.tie_margin
            )
            for pair in pairs
        ]


def grades(prompt: str, response: str) -> dict[str, float]:
    """The grade in [0, 1] of each item of the rubric."""
    found = parts(response)
    if found is None:
        return dict.fromkeys(RUBRIC, 0.0)
    start, rest = terms(prompt)
    steps = [stated(word) for word in found.think.split()]
    whole = max(len(steps), len(rest))
    last = steps[-1]
    return {
        "format": 1.0,
        "arithmetic": sum(step is not None and step.is_right for step in steps) / whole,
        "follows": _followed(start, rest, steps) / whole,
        "answer": float(last is not None and found.answer == str(last.result)),
    }


def terms(prompt: str) -> tuple[int, list[tuple[str, int]]]:
    """The number that a chain begins with, and the (sign, operand) terms behind it."""
    (_, start), *rest = ((sign, int(digits)) for sign, digits in _TERM.findall(prompt))
    return start, rest


def stated(word: str) -> Step | None:
    """The step that a word of the working states; None where it states none."""
    match = _STEP.fullmatch(word)
    return Step(int(match[1]), match[2], int(match[3]), int(match[4])) if match else None


def _followed(start: int, terms: Sequence[tuple[str, int]], steps: Sequence[Step | None]) -> int:
    """How many steps take the question's next term to the result of the step before (right or wrong)."""
    value, followed = start, 0
    for (sign, operand), step in zip(terms, steps, strict=False):
        if step is None:
            break
        followed += step.left == value and (step.sign, step.operand) == (sign, operand)
        value = step.result
    return followed
