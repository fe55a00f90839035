"""What is set aside, why, and when it is too much."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlpipe.config.schema import Data
from rlpipe.dataio.quarantine import Sifted, check_rate, sift, write_quarantine
from rlpipe.dataio.raw import FileTables
from rlpipe.dataio.sources.rows import rows
from rlpipe.errors import DataError

GOOD = {"prompt": "a good one", "response": "yes"}
HELD = [{"prompt": "held out", "answer": "1"}]


def sifted(data: Data, tables: Callable[..., FileTables], demonstrations: list) -> Sifted:
    tasks = [{"prompt": "a task", "answer": "1"}]
    return sift(rows(data, tables(demonstrations=demonstrations, tasks=tasks, heldout=HELD), 0))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "cut of', "malformed"),
        ("", "malformed"),
        ("[1, 2]", "malformed"),
        ({"prompt": "no response"}, "malformed"),
        ({"prompt": "a number", "response": 5}, "not_text"),
        ({"prompt": ["a list"], "response": "x"}, "not_text"),
        ({"prompt": "null", "response": None}, "empty"),
        ({"prompt": "blank", "response": " \n"}, "empty"),
        ({"prompt": "", "response": "x"}, "empty"),
        ({"prompt": "Held  OUT ", "response": "x"}, "leak"),
    ],
)
def test_each_bad_row_has_its_reason_and_its_line(
    data: Data, tables: Callable[..., FileTables], line: object, reason: str
) -> None:
    found = sifted(data, tables, [GOOD, line, GOOD])
    (bad,) = found.quarantined
    assert (bad.row.source, bad.row.line, bad.bad.reason) == ("demonstrations.jsonl", 2, reason)
    # 3 demonstrations + 1 task + 1 held-out task, one of which is set aside.
    assert found.rows_in == 5 == sum(map(len, found.records.values())) + 1
    assert sum(found.reasons.values()) == found.reasons[reason] == 1


def test_a_leak_costs_the_training_row_not_the_held_out_task(data: Data, tables: Callable[..., FileTables]) -> None:
    found = sifted(data, tables, [GOOD, {"prompt": "held out", "response": "1"}])
    assert [task.prompt for task in found.records["heldout"]] == ["held out"]
    assert found.quarantined[0].bad.detail == "the prompt is held out as heldout.jsonl:1"


def test_the_file_keeps_the_row_as_it_was(data: Data, tables: Callable[..., FileTables], tmp_path: Path) -> None:
    write_quarantine(tmp_path / "out" / "quarantine.jsonl", sifted(data, tables, [GOOD, {"prompt": "é"}]))
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "source": "demonstrations.jsonl", "line": 2, "reason": "malformed",
        "detail": "field 'response' is missing", "row": {"prompt": "é"},
    }  # fmt: skip


def test_the_rate_may_be_reached_but_not_passed(data: Data, tables: Callable[..., FileTables]) -> None:
    # 8 demonstrations + 1 task + 1 held out = 10 rows, 2 of them bad: a rate of exactly 0.2.
    found = sifted(data, tables, [GOOD] * 6 + ["{", {"prompt": "", "response": "x"}])
    check_rate(found, 0.2, Path("q.jsonl"))
    with pytest.raises(DataError) as caught:
        check_rate(found, 0.19, Path("q.jsonl"))
    for part in (
        "data.max_quarantine_rate=0.19",
        "2 of 10 rows (20.0%)",
        "1 malformed",
        "1 empty",
        "q.jsonl",
    ):
        assert part in str(caught.value)
