"""What is wrong with the working of a chain such as 7+12-4, in words, and the response without that fault.

A program looks for one kind of fault at a time, named as the rubric's items are. This is the truth that the embedded
judge is taught; it needs no gold answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlpipe.rewards.format import parts
from rlpipe.rewards.judges.rubric import Step, stated, terms

NOTHING = "Nothing is wrong."
BROKEN = "The form is broken."
_MOST_STEPS = 12  # of a response that is read at all; a policy that rambles is not taught from


@dataclass(frozen=True)
class Finding:
    """Attributes:
    critique: what is wrong, in one sentence; NOTHING where nothing is.
    corrected: the response without that fault, other faults left as they are; the same response where nothing is wrong.
    """

    critique: str
    corrected: str

    @property
    def is_clean(self) -> bool:
        return self.critique == NOTHING


@dataclass(frozen=True)
class Working:
    """A response in the format: its steps, and the answer as it stands."""

    start: int
    terms: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    answer: str


def working(prompt: str, response: str) -> Working | None:
    """The working as far as a program can read all of it; None for a response out of format or with other words."""
    found = parts(response)
    if found is None:
        return None
    steps = [stated(word) for word in found.think.split()]
    if not all(steps) or len(steps) > _MOST_STEPS:
        return None
    start, rest = terms(prompt)
    return Working(start, tuple(rest), tuple(step for step in steps if step is not None), found.answer)


def inspect(item: str, prompt: str, response: str) -> Finding:
    """What `item`, a key of INSPECTIONS, finds in a response. Where nothing can be read, the form is the fault."""
    found = working(prompt, response)
    if found is None:
        return Finding(BROKEN, solution(prompt))
    return INSPECTIONS[item](found, response)


def solution(prompt: str) -> str:
    """The whole working of a chain, without a fault."""
    start, rest = terms(prompt)
    return written(carried(start, rest))


def carried(start: int, rest: Sequence[tuple[str, int]]) -> list[Step]:
    """Steps that take one term after the other, each calculated right."""
    steps, value = [], start
    for sign, operand in rest:
        result = value + operand if sign == "+" else value - operand
        steps.append(Step(value, sign, operand, result))
        value = result
    return steps


def written(steps: Sequence[Step], answer: str | None = None) -> str:
    """The response that states these steps, and the last one's result as its answer unless another is given."""
    said = " ".join(step.text for step in steps)
    return f"<think>{said}</think><answer>{steps[-1].result if answer is None else answer}</answer>"


def _arithmetic(found: Working, response: str) -> Finding:
    """The first step that is calculated wrong; from there on the steps take the same terms and are right."""
    for at, step in enumerate(found.steps):
        if not step.is_right:
            rest = [(later.sign, later.operand) for later in found.steps[at:]]
            mended = carried(step.left, rest)
            critique = f"{step.text} is wrong: it is {mended[0].result}."
            return Finding(critique, written([*found.steps[:at], *mended]))
    return Finding(NOTHING, response)


def _follows(found: Working, response: str) -> Finding:
    """The first place where the steps leave the question; from there on they follow it."""
    value = found.start
    for at, (sign, operand) in enumerate(found.terms):
        rest = carried(value, found.terms[at:])
        if at == len(found.steps):
            left_out = "".join(f"{sign}{operand}" for sign, operand in found.terms[at:])
            return Finding(f"{left_out} is left out.", written([*found.steps, *rest]))
        step = found.steps[at]
        if (step.left, step.sign, step.operand) != (value, sign, operand):
            return Finding(f"{step.text} should be {rest[0].text}.", written([*found.steps[:at], *rest]))
        value = step.result
    if len(found.steps) > len(found.terms):
        return Finding(f"{found.steps[len(found.terms)].text} is too much.", written(found.steps[: len(found.terms)]))
    return Finding(NOTHING, response)


def _answer(found: Working, response: str) -> Finding:
    result = str(found.steps[-1].result)
    if found.answer == result:
        return Finding(NOTHING, response)
    return Finding(f"The answer is {result}.", written(found.steps))


def _format(found: Working, response: str) -> Finding:  # noqa: ARG001 - an inspection
    return Finding(NOTHING, response)  # what can be read is in the format


INSPECTIONS: Mapping[str, Callable[[Working, str], Finding]] = {
    "format": _format,
    "arithmetic": _arithmetic,
    "follows": _follows,
    "answer": _answer,
}
