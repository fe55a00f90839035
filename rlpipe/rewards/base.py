"""The shapes of this room: a component scores one aspect, a reward is the weighted sum of components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlpipe.types import Scored, Task


@dataclass(frozen=True)
class Missing:
    """Stands where a score should be, and says why there is none."""

    reason: str


class Explained(float):
    """A score that says how it came about; in every calculation it is the number alone."""

    reason: str

    def __new__(cls, score: float, reason: str) -> Explained:
        made = super().__new__(cls, score)
        made.reason = reason
        return made


# Batch in, one score or one Missing out for each completion, in order.
Component = Callable[[Sequence[Task], Sequence[str]], list[float | Missing]]
# A component before its options are bound: they are its parameters behind tasks and completions.
ComponentFunction = Callable[..., list[float | Missing]]
Reward = Callable[[Sequence[Task], Sequence[str]], list[Scored]]
