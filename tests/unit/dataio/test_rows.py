"""Anyone's rows: which tables are read, and how tasks are held out where no table says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlpipe.config.schema import Data
from rlpipe.dataio.files import read_rows, write_rows
from rlpipe.dataio.quarantine import sift
from rlpipe.dataio.raw import FileTables
from rlpipe.dataio.sources.rows import rows
from rlpipe.errors import DataError
from rlpipe.types import Task

SHOWN = [{"prompt": f"shown {n}", "response": "yes"} for n in range(3)]
TASKS = [{"prompt": f"task {n}", "answer": str(n)} for n in range(8)]


def test_a_heldout_table_is_taken_as_it_is(data: Data, tables: Callable[..., FileTables]) -> None:
    held = [{"prompt": "held", "answer": ""}]
    pairs = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    sifted = sift(rows(data, tables(demonstrations=SHOWN, tasks=TASKS, heldout=held, preferences=pairs), 0))
    assert {s: len(r) for s, r in sifted.records.items()} == {
        "demonstrations": 3, "tasks": 8, "heldout": 1, "preferences": 1,
    }  # fmt: skip
    assert sifted.records["heldout"][0].answer == "", "a task without a gold answer is a task"


def test_without_one_a_quarter_of_the_tasks_is_held_out(data: Data, tables: Callable[..., FileTables]) -> None:
    sifted = sift(rows(data, tables(demonstrations=SHOWN, tasks=TASKS), 0))
    assert (len(sifted.records["tasks"]), len(sifted.records["heldout"])) == (6, 2)


def test_a_tasks_other_columns_go_with_it_through_the_file(
    data: Data, tables: Callable[..., FileTables], tmp_path: Path
) -> None:
    columns = {"test_list": ["assert f(1) == 2"], "level": 3, "note": None, "nested": {"b": [1.5], "a": "\u2603"}}
    tasks = [{"prompt": "task", "answer": "2", **columns}, {"prompt": "plain", "answer": ""}]
    sifted = sift(rows(data, tables(demonstrations=SHOWN, tasks=tasks, heldout=tasks[:1]), 0))
    write_rows(tmp_path / "prepared.jsonl", sifted.records["heldout"])
    (read,) = read_rows(tmp_path / "prepared.jsonl", Task)
    assert (read.prompt, read.answer, read.columns) == ("task", "2", columns)
    # A prompt that is held out is not learned from; the other one has no more columns than its own.
    assert [(task.prompt, task.columns) for task in sifted.records["tasks"]] == [("plain", {})]


def test_prompts_that_were_shown_are_never_held_out(data: Data, tables: Callable[..., FileTables]) -> None:
    # 6 of 8 task prompts are demonstrated; a quarter of 8 is 2: exactly the two others, whatever the seed.
    shown = [{"prompt": f"task {n}", "response": "yes"} for n in range(6)]
    source = tables(demonstrations=shown, tasks=TASKS)
    for seed in range(5):
        held = sift(rows(data, source, seed)).records["heldout"]
        assert {task.prompt for task in held} == {"task 6", "task 7"}


def test_too_few_unseen_prompts_are_refused(data: Data, tables: Callable[..., FileTables]) -> None:
    shown = [{"prompt": f"task {n}", "response": "yes"} for n in range(7)]
    with pytest.raises(
        DataError, match=r"data\.heldout_fraction=0\.25: 2 of the 8 task prompts .* only 1 are not shown"
    ):
        rows(data, tables(demonstrations=shown, tasks=TASKS), 0)


def test_a_missing_table_is_named(data: Data, tables: Callable[..., FileTables]) -> None:
    with pytest.raises(DataError, match=r"holds no tasks\.jsonl or tasks\.json"):
        rows(data, tables(demonstrations=SHOWN), 0)
