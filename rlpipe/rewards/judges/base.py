"""What every judge answers, and the shape that all of them have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlpipe.errors import RlpipeError

# A verdict over two responses, by the response and not by where it was shown.
Winner = Literal["first", "second", "tie"]


class JudgeError(RlpipeError):
    """A judge cannot be asked as it is configured."""


class JudgeDownError(JudgeError):
    """A judge stopped answering; what it had answered is kept."""


class ReplayError(JudgeError):
    """Replay forbids calls, and a judgment is not among those on file."""


@dataclass(frozen=True)
class Verdict:
    """A score in [0, 1], or None and the reason why there is none."""

    score: float | None
    missing: str = ""

    def __post_init__(self) -> None:
        assert (self.score is None) == bool(self.missing), "a verdict has a score or a reason, never both"


@dataclass(frozen=True)
class Pair:
    """Two responses to one prompt."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True)
class PairVerdict:
    """What a judge said of a pair, asked twice.

    Attributes:
        forward: its verdict with `first` shown first; None where it gave none.
        backward: its verdict with `second` shown first.
        missing: why there is no verdict in one of the orders; empty where both are there.
    """

    forward: Winner | None
    backward: Winner | None
    missing: str = ""

    def __post_init__(self) -> None:
        absent = self.forward is None or self.backward is None
        assert absent == bool(self.missing), "a pair lacks a verdict exactly when it says why"

    @property
    def winner(self) -> Winner | None:
        """The response preferred in both orders; a disagreement is a tie; None where an order has no verdict."""
        if self.forward is None or self.backward is None:
            return None
        return self.forward if self.forward == self.backward else "tie"


def by_score(first: Verdict, second: Verdict, *, tie_margin: float) -> PairVerdict:
    """The choice of a judge that only knows scores: the higher one. It sees no order, so both say the same.

    Args: tie_margin: scores no further apart than this are a tie.
    """
    if first.score is None or second.score is None:
        return PairVerdict(None, None, first.missing or second.missing)
    lead = first.score - second.score
    winner: Winner = "tie" if abs(lead) <= tie_margin else "first" if lead > 0 else "second"
    return PairVerdict(winner, winner)


class Judge(Protocol):
    """Judges responses one by one or two by two. It never sees a gold answer."""

    def score(self, prompt: str, response: str) -> Verdict:
        """How good `response` is as an answer to `prompt`."""

    def scores(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        """One verdict for each (prompt, response), in order; asked together, so that they can be in flight at once."""

    def choices(self, pairs: Sequence[Pair]) -> list[PairVerdict]:
        """One verdict for each pair, in order, each asked in both orders."""
