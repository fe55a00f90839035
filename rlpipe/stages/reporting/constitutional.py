"""What the report says of critique and revision: how right each round's texts are, and the first examples whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rlpipe.dataio.files import read_rows
from rlpipe.stages.base import Stage

PRINCIPLES, REVISIONS = "data/constitution/principles.jsonl", "data/constitution/revisions.jsonl"
_COLUMNS = ("texts", "pass", "ci_low", "ci_high", "changed")  # of a round, in the metrics
_MISSING = "missing_"


@dataclass(frozen=True)
class PrincipleRow:
    """One row of data/constitution/principles.jsonl."""

    name: str
    critique: str
    revision: str
    question: str
    lesson: str | None


@dataclass(frozen=True)
class RoundRow:
    """One round's texts; 0 is the response that the policy drew. Shares in [0, 1]; None where nothing was scored.

    `changed` is None for the drafts.
    """

    number: int
    texts: int
    passed: float | None
    low: float | None
    high: float | None
    changed: float | None


@dataclass(frozen=True)
class Shown:
    """One text and what led to it; `right` is None where the verifier has no score, or there is no text."""

    principle: str
    critique: str
    text: str
    missing: str
    right: bool | None


@dataclass(frozen=True)
class Example:
    """A prompt with its draft and every round."""

    id: str
    prompt: str
    draft: str
    right: bool | None
    rounds: tuple[Shown, ...]


@dataclass(frozen=True)
class Constitutional:
    """The section's content."""

    principles: tuple[PrincipleRow, ...]
    rounds: tuple[RoundRow, ...]
    missing: Mapping[str, int]
    demonstrations: int
    examples: tuple[Example, ...]


def constitutional(stage: Stage, measured: Mapping[str, Any]) -> Constitutional:
    """Args: measured: metrics/constitution.json. Raises: DataError if the principles are missing."""
    own, report = stage.params.constitution, stage.params.report
    threshold = stage.params.evaluate.pass_threshold
    of_rounds = {name.removeprefix("constitution/"): value for name, value in measured.items()}
    return Constitutional(
        principles=tuple(read_rows(stage.path(PRINCIPLES), PrincipleRow)),
        rounds=tuple(_rounds(of_rounds, own.rounds)),
        missing={name.removeprefix(_MISSING): count for name, count in of_rounds.items() if name.startswith(_MISSING)},
        demonstrations=measured["data/demonstrations"],
        examples=tuple(_examples(stage.path(REVISIONS), report.samples, threshold)),
    )


def _rounds(measured: Mapping[str, Any], rounds: int) -> Sequence[RoundRow]:
    found = []
    for number in range(rounds + 1):
        of = {name: measured.get(f"round_{number}_{name}") for name in _COLUMNS}
        if of["texts"] is not None:
            found.append(RoundRow(number, of["texts"], of["pass"], of["ci_low"], of["ci_high"], of["changed"]))
    return found


def _examples(path: Path, count: int, threshold: float) -> Sequence[Example]:
    """The first of the file, whatever became of them: nothing is picked by its outcome."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, count)]
    return [
        Example(
            id=row["id"],
            prompt=row["prompt"],
            draft=row["response"],
            right=_right(row["score"], threshold),
            rounds=tuple(
                Shown(
                    one["principle"],
                    one["critique"],
                    one["revision"],
                    one["missing"],
                    _right(one["score"], threshold),
                )
                for one in row["rounds"]
            ),
        )
        for row in rows
    ]


def _right(score: float | None, threshold: float) -> bool | None:
    return None if score is None else score >= threshold
