"""A step on fixed rows against TRL's: what DPO, the reward model and SFT have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from benchmarks import ours
from benchmarks.gradients import require_same
from benchmarks.ours import Took
from benchmarks.pairs import Result, from_here, peak_memory, timed

# Of the gradients' length, in float32.
LIMIT = 1e-3


class Side(Protocol):
    """Takes steps on its rows. Importable, or a partial of what is, so that another process can do it."""

    def __call__(self, *, steps: int, lr: float) -> Took: ...


def compared(name: str, mine: Side, peer: Side, pairs: int) -> list[Result]:
    """Seconds and peak memory of a step. Raises: AssertionError if the two sides' gradients differ."""
    require_same(
        mine(steps=1, lr=ours.STILL).gradients,
        peer(steps=1, lr=ours.STILL).gradients,
        LIMIT,
    )
    return [
        timed(name, _seconds(mine), _seconds(peer), pairs, warmed_up=True),
        peak_memory(f"{name}, memory", partial(once, mine), partial(once, peer)),
    ]


def once(side: Side) -> None:
    """For a process of its own."""
    from_here()
    side(steps=1, lr=ours.STILL)


def _seconds(side: Side) -> Callable[[], float]:
    """Of the second step: in a run's first, AdamW writes to weights that still lie in their file, page by page."""
    return lambda: side(steps=2, lr=ours.STILL).seconds
