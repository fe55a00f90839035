"""From raw rows to records: what a row must hold to be used at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlpipe.dataio.raw import RawRow
from rlpipe.types import Demonstration, Preference, Task

Split = Literal["demonstrations", "tasks", "heldout", "preferences"]
Record = Demonstration | Task | Preference
Reason = Literal["malformed", "not_text", "empty", "equal_pair", "gold", "leak"]

SPLITS: tuple[Split, ...] = ("demonstrations", "tasks", "heldout", "preferences")
REASONS: Mapping[Reason, str] = {
    "malformed": "the line is no JSON object, or lacks a field",
    "not_text": "a field is not a string",
    "empty": "a field is empty or blank",
    "equal_pair": "chosen and rejected are the same",
    "gold": "the gold answer cannot be read",
    "leak": "the prompt is held out for evaluation",
}


class BadRow(Exception):  # noqa: N818 - a verdict on a row, handled in this room
    """A row that cannot be used. Never leaves `dataio`: it becomes a line of the quarantine file."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Candidate:
    """A raw row and what it is used for: a record in one or more splits, or the reason why it is not used."""

    row: RawRow
    uses: Mapping[Split, Record] = field(default_factory=dict)
    bad: BadRow | None = None


def candidate(row: RawRow, use: Callable[[RawRow], Mapping[Split, Record]]) -> Candidate:
    """The row with its uses; a BadRow raised by `use` is kept as the reason for its quarantine."""
    try:
        return Candidate(row, use(row))
    except BadRow as bad:
        return Candidate(row, bad=bad)


def text(row: RawRow, name: str) -> str:
    """The row's field `name`: a string with something in it. Raises: BadRow."""
    if row.problem:
        raise BadRow("malformed", row.problem)
    if not isinstance(row.value, Mapping):
        raise BadRow("malformed", f"expected an object, found {type(row.value).__name__}")
    if name not in row.value:
        raise BadRow("malformed", f"field {name!r} is missing")
    value: Any = row.value[name]
    if value is None:
        raise BadRow("empty", f"field {name!r} is null")
    if not isinstance(value, str):
        raise BadRow("not_text", f"field {name!r} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow("empty", f"field {name!r} is empty")
    return value


def preference(row: RawRow, prompt: str, chosen: str, rejected: str) -> Preference:
    """The pair as a record. Raises: BadRow if both responses are the same text."""
    if chosen.strip() == rejected.strip():
        raise BadRow("equal_pair", "chosen == rejected: the pair says nothing")
    return Preference(row.id, prompt, chosen, rejected)


def prompt_key(prompt: str) -> str:
    """What makes two prompts the same: their words, whatever the case and the white space."""
    return " ".join(prompt.split()).casefold()
