"""Instructions with answers, and the same instructions with a polite and a rude answer.

Layout of github.com/rasbt/LLMs-from-scratch, ch07: `instruction-data.json` and
`instruction-data-with-preference.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlpipe.config.schema import Data
from rlpipe.dataio.raw import RawRow, Tables
from rlpipe.dataio.records import BadRow, Candidate, Record, Split, candidate, preference, prompt_key, text
from rlpipe.dataio.splits import hold_out
from rlpipe.types import Demonstration, Task


def instruct(data: Data, tables: Tables, seed: int) -> Sequence[Candidate]:
    """Instructions are held out (a share `data.heldout_fraction` of the prompts) or learnt from.

    What is learnt from is both a demonstration and a task whose answer is the reference output. A prompt that
    stands in several rows, with different outputs, has all of them on one side.
    """
    rows = tables.read("instruction-data")
    held = hold_out(_readable_prompts(rows), data.heldout_fraction, seed)

    def use(row: RawRow) -> Mapping[Split, Record]:
        task = Task(row.id, prompt(row), text(row, "output"))
        if prompt_key(task.prompt) in held:
            return {"heldout": task}
        return {"demonstrations": Demonstration(row.id, task.prompt, task.answer), "tasks": task}

    pairs = tables.read("instruction-data-with-preference")
    return [candidate(row, use) for row in rows] + [candidate(row, _pair) for row in pairs]


def prompt(row: RawRow) -> str:
    """The instruction, and the input on a line of its own where there is one. Raises: BadRow."""
    instruction = text(row, "instruction")
    given = row.value.get("input") or ""
    if not isinstance(given, str):
        raise BadRow("not_text", f"field 'input' is {type(given).__name__}, not text")
    return f"{instruction}\n{given}" if given.strip() else instruction


def _pair(row: RawRow) -> Mapping[Split, Record]:
    return {"preferences": preference(row, prompt(row), text(row, "chosen"), text(row, "rejected"))}


def _readable_prompts(rows: Sequence[RawRow]) -> list[str]:
    prompts = []
    for row in rows:
        try:
            prompts.append(prompt(row))
        except BadRow:
            continue  # its candidate is quarantined with the reason
    return prompts
