"""Instructions: prompts on one side only, equal pairs in quarantine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlpipe.config.schema import Data
from rlpipe.dataio.quarantine import sift
from rlpipe.dataio.raw import FileTables
from rlpipe.dataio.records import prompt_key
from rlpipe.dataio.sources.instruct import instruct

NAMES = ("instruction_data", "instruction_data_with_preference")


def instructions(count: int) -> list[dict[str, str]]:
    return [{"instruction": f"Say {n}.", "input": "", "output": f"{n}."} for n in range(count)]


def pair(chosen: str, rejected: str) -> dict[str, str]:
    return {"instruction": "Greet.", "input": "Ann", "output": "Hi", "chosen": chosen, "rejected": rejected}


def test_a_quarter_of_eight_prompts_is_held_out(data: Data, tables: Callable[..., FileTables]) -> None:
    sifted = sift(instruct(data, tables(**dict(zip(NAMES, (instructions(8), []), strict=True))), 0))
    assert {split: len(rows) for split, rows in sifted.records.items()} == {
        "demonstrations": 6, "tasks": 6, "heldout": 2, "preferences": 0,
    }  # fmt: skip


def test_rows_of_one_prompt_go_to_one_side_whatever_the_seed(data: Data, tables: Callable[..., FileTables]) -> None:
    # Each prompt stands twice, once in capitals: 8 rows, 4 prompts, one of which (2 rows) is held out.
    twice = instructions(4) + [row | {"instruction": row["instruction"].upper()} for row in instructions(4)]
    source = tables(**dict(zip(NAMES, (twice, []), strict=True)))
    chosen = set()
    for seed in range(8):
        sifted = sift(instruct(data, source, seed))
        assert (len(sifted.records["heldout"]), len(sifted.records["tasks"]), sifted.quarantined) == (
            2,
            6,
            [],
        )
        chosen |= {prompt_key(task.prompt) for task in sifted.records["heldout"]}
    assert len(chosen) > 1, "the seed chooses"


def test_the_input_stands_below_the_instruction_and_equal_pairs_are_set_aside(
    data: Data, tables: Callable[..., FileTables]
) -> None:
    pairs = [pair("Hello Ann.", "Oh, you."), pair("Same.", " Same.")]
    sifted = sift(instruct(data, tables(**dict(zip(NAMES, (instructions(4), pairs), strict=True))), 0))
    (kept,), (bad,) = sifted.records["preferences"], sifted.quarantined
    assert (kept.prompt, kept.chosen, kept.rejected) == ("Greet.\nAnn", "Hello Ann.", "Oh, you.")
    assert (bad.row.line, bad.bad.reason) == (2, "equal_pair")


def test_real_rows(data: Data, realdata: Path) -> None:
    # 1,100 instructions, 1,075 distinct; a quarter of those is 269. 1,100 pairs, 6 of them equal.
    sifted = sift(instruct(data, FileTables(realdata / "rasbt_instruct"), 17))
    assert sifted.reasons["equal_pair"] == len(sifted.quarantined) == 6
    assert (sifted.rows_in, len(sifted.records["preferences"])) == (2200, 1094)
    held, learnt = ({prompt_key(r.prompt) for r in sifted.records[s]} for s in ("heldout", "demonstrations"))
    assert (len(held), len(learnt), held & learnt) == (269, 1075 - 269, set())
