"""What every judge answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Verdict:
    """A score in [0, 1], or None and the reason why there is none."""

    score: float | None
    missing: str = ""

    def __post_init__(self) -> None:
        assert (self.score is None) == bool(self.missing), "a verdict has a score or a reason, never both"


class Judge(Protocol):
    """Judges one response by itself."""

    def score(self, prompt: str, response: str) -> Verdict:
        """How good `response` is as an answer to `prompt`."""
