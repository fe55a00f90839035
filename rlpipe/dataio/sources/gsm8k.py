"""Grade-school word problems (arXiv:2110.14168): `question`, and `answer` whose last line is `#### N`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlpipe.config.schema import Data
from rlpipe.dataio.raw import RawRow, Tables
from rlpipe.dataio.records import BadRow, Candidate, Record, Split, candidate, text
from rlpipe.types import Demonstration, Task

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_GOLD = re.compile(r"[-+]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?")


def gsm8k(data: Data, tables: Tables, seed: int) -> Sequence[Candidate]:  # noqa: ARG001 - a Source
    """Rows of `train` are demonstrations and tasks to learn from; rows of `test` are held out.

    The demonstration keeps the solution's reasoning without its calculator annotations `<<48/2=24>>`.
    """
    train = [candidate(row, _learn) for row in tables.read("train")]
    return train + [candidate(row, _evaluate) for row in tables.read("test")]


def gold(solution: str) -> tuple[str, str]:
    """The reasoning and the final number, the latter without thousands commas. Raises: BadRow."""
    reasoning, mark, final = solution.rpartition("####")
    if not mark:
        raise BadRow("gold", "the answer has no line `#### N`")
    if _GOLD.fullmatch(final.strip()) is None:
        raise BadRow("gold", f"the final answer {final.strip()!r} is no number")
    return _CALCULATOR.sub("", reasoning).strip(), final.strip().replace(",", "")


def _learn(row: RawRow) -> Mapping[Split, Record]:
    question = text(row, "question")
    reasoning, final = gold(text(row, "answer"))
    if not reasoning:
        raise BadRow("empty", "the answer has no reasoning before ####")
    response = f"<think>{reasoning}</think><answer>{final}</answer>"
    return {
        "demonstrations": Demonstration(row.id, question, response),
        "tasks": Task(row.id, question, final),
    }


def _evaluate(row: RawRow) -> Mapping[Split, Record]:
    question = text(row, "question")
    return {"heldout": Task(row.id, question, gold(text(row, "answer"))[1])}
