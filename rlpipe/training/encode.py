"""From rows to token ids, once, before training. Rows that do not fit are counted, never cut silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rlpipe.dataio.chat import prompt_ids, response_ids
from rlpipe.errors import DataError
from rlpipe.types import Demonstration, Preference, Task

Ids = tuple[int, ...]
Example = tuple[Ids, Ids]


@dataclass(frozen=True)
class Encoded:
    """(prompt, response) id pairs, and how many rows were longer than `max_length`."""

    examples: list[Example]
    too_long: int


@dataclass(frozen=True)
class EncodedPairs:
    """Chosen and rejected examples and known margins, row by row; how many pairs were longer than `max_length`."""

    chosen: list[Example]
    rejected: list[Example]
    margins: list[float]
    too_long: int

    @property
    def tokens(self) -> list[int]:
        """Of each pair: its prompt, read once, and both responses."""
        pairs = zip(self.chosen, self.rejected, strict=True)
        return [len(prompt) + len(chosen) + len(rejected) for (prompt, chosen), (_, rejected) in pairs]


@dataclass(frozen=True)
class EncodedTasks:
    """Tasks with their prompts' ids, and how many prompts left no room for an answer."""

    tasks: list[Task]
    prompts: list[Ids]
    too_long: int


def encode_demonstrations(
    rows: Sequence[Demonstration], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Encoded:
    """Raises: DataError if no row is left."""
    examples = [(prompt_ids(tokenizer, row.prompt), response_ids(tokenizer, row.response)) for row in rows]
    kept = [example for example in examples if _length(example) <= max_length]
    _require(kept, "demonstration", max_length)
    return Encoded(kept, len(examples) - len(kept))


def encode_pairs(rows: Sequence[Preference], tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedPairs:
    """Raises: DataError if no pair is left."""
    chosen: list[Example] = []
    rejected: list[Example] = []
    margins: list[float] = []
    for row in rows:
        prompt = prompt_ids(tokenizer, row.prompt)
        pair = (prompt, response_ids(tokenizer, row.chosen)), (prompt, response_ids(tokenizer, row.rejected))
        if max(map(_length, pair)) <= max_length:
            chosen.append(pair[0])
            rejected.append(pair[1])
            margins.append(row.margin)
    _require(chosen, "pair", max_length)
    return EncodedPairs(chosen, rejected, margins, len(rows) - len(chosen))


def encode_tasks(
    rows: Sequence[Task], tokenizer: PreTrainedTokenizerBase, max_length: int, max_new_tokens: int
) -> EncodedTasks:
    """Raises: DataError if no task is left."""
    encoded = [(row, prompt_ids(tokenizer, row.prompt)) for row in rows]
    kept = [(row, ids) for row, ids in encoded if len(ids) + max_new_tokens <= max_length]
    _require(kept, "task", max_length)
    return EncodedTasks([row for row, _ in kept], [ids for _, ids in kept], len(encoded) - len(kept))


def _length(example: Example) -> int:
    return len(example[0]) + len(example[1])


def _require(kept: Sequence[object], what: str, max_length: int) -> None:
    if not kept:
        raise DataError(f"model.max_length={max_length}: no {what} fits. Raise it, or lower rollout.max_new_tokens.")
