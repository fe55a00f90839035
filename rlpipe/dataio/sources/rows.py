"""Rows already in rlpipe's own fields: the way in for anyone's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlpipe.config.schema import Data
from rlpipe.dataio.raw import RawRow, Tables
from rlpipe.dataio.records import Candidate, Record, Split, candidate, preference, prompt_key, text
from rlpipe.dataio.splits import hold_out
from rlpipe.errors import DataError
from rlpipe.types import Demonstration, Task


def rows(data: Data, tables: Tables, seed: int) -> Sequence[Candidate]:
    """Read `demonstrations` (prompt, response), `tasks` (prompt, answer), and where they exist `preferences`
    (prompt, chosen, rejected) and `heldout` (prompt, answer).

    Without a `heldout` table, `data.heldout_fraction` of the tasks' prompts is held out, among those that no
    demonstration shows. `answer` may be empty: for rewards that need no gold answer. Every other column of a task's
    row goes with the task, for rewards that need it, such as tests.

    Raises: DataError if too few tasks have prompts that no demonstration shows.
    """
    demonstrations = [candidate(row, _demonstration) for row in tables.read("demonstrations")]
    tasks = tables.read("tasks")
    if tables.has("heldout"):
        split_tasks = [candidate(row, _learn) for row in tasks]
        split_tasks += [candidate(row, _evaluate) for row in tables.read("heldout")]
    else:
        held = _chosen_prompts(demonstrations, tasks, data.heldout_fraction, seed)
        split_tasks = [candidate(row, lambda row: _route(row, held)) for row in tasks]
    pairs = tables.read("preferences") if tables.has("preferences") else []
    return demonstrations + split_tasks + [candidate(row, _pair) for row in pairs]


def _demonstration(row: RawRow) -> Mapping[Split, Record]:
    return {"demonstrations": Demonstration(row.id, text(row, "prompt"), text(row, "response"))}


def _task(row: RawRow) -> Task:
    prompt = text(row, "prompt")
    has_answer = row.value.get("answer") not in (None, "")
    columns = {name: value for name, value in row.value.items() if name not in ("prompt", "answer")}
    return Task(row.id, prompt, text(row, "answer") if has_answer else "", columns)


def _learn(row: RawRow) -> Mapping[Split, Record]:
    return {"tasks": _task(row)}


def _evaluate(row: RawRow) -> Mapping[Split, Record]:
    return {"heldout": _task(row)}


def _route(row: RawRow, held: frozenset[str]) -> Mapping[Split, Record]:
    task = _task(row)
    return {"heldout": task} if prompt_key(task.prompt) in held else {"tasks": task}


def _pair(row: RawRow) -> Mapping[Split, Record]:
    return {"preferences": preference(row, text(row, "prompt"), text(row, "chosen"), text(row, "rejected"))}


def _chosen_prompts(
    demonstrations: Sequence[Candidate], tasks: Sequence[RawRow], fraction: float, seed: int
) -> frozenset[str]:
    shown = {prompt_key(record.prompt) for row in demonstrations for record in row.uses.values()}
    prompts = [use.prompt for row in tasks for use in candidate(row, _learn).uses.values()]
    distinct = {prompt_key(prompt) for prompt in prompts}
    unseen = distinct - shown
    wanted = max(1, round(fraction * len(distinct)))
    if len(unseen) < wanted:
        raise DataError(
            f"data.heldout_fraction={fraction}: {wanted} of the {len(distinct)} task prompts are to be held "
            f"out, but only {len(unseen)} are not shown in the demonstrations, and a model must not be "
            "evaluated on what it was shown. Add a heldout table with prompts of its own, or lower the "
            "fraction."
        )
    return hold_out(unseen, wanted / len(unseen), seed)
