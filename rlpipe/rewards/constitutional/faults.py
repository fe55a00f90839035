"""Faults planted in the working of a chain, because a policy's own samples have too few of most kinds to learn from."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from rlpipe.rewards.constitutional.working import carried, written
from rlpipe.rewards.format import TAGS
from rlpipe.rewards.judges.rubric import Step, terms

_SLIPS = (-3, -2, -1, 1, 2, 3)


def faulty(item: str, prompt: str, generator: random.Random) -> str:
    """The solution of a chain with one fault of the kind `item`, a key of FAULTS, that shows in nothing else."""
    start, rest = terms(prompt)
    return FAULTS[item](start, rest, generator)


def _slip(start: int, rest: Sequence[tuple[str, int]], generator: random.Random) -> str:
    """One step off by 1 to 3, the others carry it on."""
    steps = carried(start, rest)
    at = generator.randrange(len(steps))
    wrong = steps[at]
    wrong = Step(wrong.left, wrong.sign, wrong.operand, wrong.result + generator.choice(_SLIPS))
    return written([*steps[:at], wrong, *carried(wrong.result, rest[at + 1 :])])


def _astray(start: int, rest: Sequence[tuple[str, int]], generator: random.Random) -> str:
    """Another term than the question's, or one or more left out at the end."""
    if len(rest) > 1 and generator.random() < 0.5:
        return written(carried(start, rest[: generator.randrange(1, len(rest))]))
    at = generator.randrange(len(rest))
    sign, operand = rest[at]
    other = ("-" if sign == "+" else "+", operand) if generator.random() < 0.5 else (sign, operand % 9 + 1)
    return written(carried(start, [*rest[:at], other, *rest[at + 1 :]]))


def _misstated(start: int, rest: Sequence[tuple[str, int]], generator: random.Random) -> str:
    steps = carried(start, rest)
    return written(steps, str(steps[-1].result + generator.choice(_SLIPS)))


def _broken(start: int, rest: Sequence[tuple[str, int]], generator: random.Random) -> str:
    """A tag left out, or one that stands where it should not."""
    whole = written(carried(start, rest))
    tag = generator.choice(TAGS)
    if generator.random() < 0.5:
        return whole.replace(tag, "")
    at = generator.randrange(len(whole))
    while any(at in range(whole.index(other) + 1, whole.index(other) + len(other)) for other in TAGS):
        at = generator.randrange(len(whole))  # not inside of another tag
    return whole[:at] + tag + whole[at:]


FAULTS: Mapping[str, Callable[[int, Sequence[tuple[str, int]], random.Random], str]] = {
    "format": _broken,
    "arithmetic": _slip,
    "follows": _astray,
    "answer": _misstated,
}
