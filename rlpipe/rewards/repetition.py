"""How much of a completion says again what it has said."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from rlpipe.rewards.base import Missing
from rlpipe.types import Task


def repetition(
    tasks: Sequence[Task],  # noqa: ARG001 - a Component
    completions: Sequence[str],
    *,
    n: Annotated[int, Field(ge=1)],
    unit: Literal["words", "characters"] = "words",
) -> list[float | Missing]:
    """Share of the n-grams that stand earlier in the completion, 1 - distinct / all; give it a negative weight.

    In [0, 1): 0 where all differ or there are fewer than n units. Words are what white space parts, in lower case.

    Source: seq-rep-n of arXiv:1908.04319.
    """
    return [repeated(text.lower().split() if unit == "words" else text.lower(), n) for text in completions]


def repeated(units: Sequence[Hashable], n: int) -> float:
    """The share of repeated n-grams of a sequence."""
    grams = [tuple(units[at : at + n]) for at in range(len(units) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
