"""LLMBar's files: pairs with careful human labels, and what judges said of them, as they said it.

Source: arXiv:2310.07641, github.com/princeton-nlp/LLMBar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlpipe.errors import DataError
from rlpipe.rewards.judges.base import Pair, PairVerdict, Winner
from rlpipe.rewards.judges.statistics import Label, LabelledPair

_LABELS: Mapping[int, Label] = {1: "first", 2: "second"}
# The whole reply that its vanilla prompt asks for, (a) the response shown first.
_REPLIES: Mapping[str, Winner] = {"Output (a)": "first", "Output (b)": "second"}
_OTHER: Mapping[Winner, Winner] = {"first": "second", "second": "first", "tie": "tie"}


def read_pairs(path: Path) -> list[LabelledPair]:
    """The pairs of a dataset or of a file of results. Raises: DataError for another file."""
    return [_pair(row, f"{path}: row {number}") for number, row in enumerate(_rows(path), start=1)]


def read_verdicts(path: Path) -> list[PairVerdict]:
    """A judge's verdicts in both orders, read off its raw completions.

    The winners that the file states beside them are not used. Raises: DataError for another file.
    """
    return [_verdicts(row, f"{path}: row {number}") for number, row in enumerate(_rows(path), start=1)]


def _rows(path: Path) -> list[Any]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise DataError(f"{path}: a file of LLMBar is a JSON list of rows, not {type(rows).__name__}.")
    return rows


def _pair(row: Any, where: str) -> LabelledPair:
    try:
        return LabelledPair(Pair(row["input"], row["output_1"], row["output_2"]), _LABELS[row["label"]])
    except (KeyError, TypeError):
        raise DataError(f"{where}: needs input, output_1, output_2, and label 1 or 2.") from None


def _verdicts(row: Any, where: str) -> PairVerdict:
    try:
        [result] = row["results"]
        straight, swapped = (result[f"swap = {swap}"]["completion"][0] for swap in (False, True))
    except (KeyError, TypeError, ValueError, IndexError):
        raise DataError(f"{where}: needs one result with a completion for `swap = False` and `swap = True`.") from None
    forward, shown = _REPLIES.get(straight), _REPLIES.get(swapped)
    unread = [reply for reply in (straight, swapped) if reply not in _REPLIES]
    return PairVerdict(forward, shown and _OTHER[shown], f"malformed: {unread}" if unread else "")
