"""Grade-school problems: what is kept of a solution, and which golds can be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlpipe.config.schema import Data
from rlpipe.dataio.quarantine import sift
from rlpipe.dataio.raw import FileTables
from rlpipe.dataio.records import BadRow
from rlpipe.dataio.sources.gsm8k import gold, gsm8k

ROW = {
    "question": "How many?",
    "answer": "She has 48/2 = <<48/2=24>>24.\nThat is $<<24*100=2400>>2400.\n#### 2,400",
}


def test_reasoning_stays_and_calculator_marks_and_commas_go(data: Data, tables: Callable[..., FileTables]) -> None:
    sifted = sift(gsm8k(data, tables(train=[ROW], test=[ROW | {"question": "Another?"}]), 0))
    (shown,), (task,), (held,) = (sifted.records[s] for s in ("demonstrations", "tasks", "heldout"))
    assert shown.response == "<think>She has 48/2 = 24.\nThat is $2400.</think><answer>2400</answer>"
    assert (shown.prompt, task.prompt, task.answer) == ("How many?", "How many?", "2400")
    assert (held.prompt, held.answer) == ("Another?", "2400")


@pytest.mark.parametrize("final", ["5", "-5", "1,234", "1,234,567.50", "0.5"])
def test_numbers_are_golds(final: str) -> None:
    assert gold(f"because\n#### {final}") == ("because", final.replace(",", ""))


@pytest.mark.parametrize("solution", ["no mark", "#### five", "#### 12,34", "#### 5 or 6", "#### "])
def test_anything_else_is_no_gold(solution: str) -> None:
    with pytest.raises(BadRow) as caught:
        gold(solution)
    assert caught.value.reason == "gold"


def test_all_8792_real_golds_parse(data: Data, realdata: Path) -> None:
    sifted = sift(gsm8k(data, FileTables(realdata / "gsm8k"), 0))
    sizes = {split: len(rows) for split, rows in sifted.records.items()}
    assert sizes == {"demonstrations": 7473, "tasks": 7473, "heldout": 1319, "preferences": 0}
    assert (sifted.rows_in, len(sifted.quarantined)) == (7473 + 1319, 0)
    tasks = [*sifted.records["tasks"], *sifted.records["heldout"]]
    assert sum(task.answer.startswith("-") for task in tasks) == 5
    assert not any("<<" in row.response or "," in row.response.partition("<answer>")[2]
                   for row in sifted.records["demonstrations"])  # fmt: skip
