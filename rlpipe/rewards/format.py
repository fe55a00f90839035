"""The visible format: `<think>…</think><answer>…</answer>`, once, in this order, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlpipe.rewards.base import Missing
from rlpipe.types import Task

_FORMAT = re.compile(r"\s*<think>(?P<think>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class Parts:
    """What stands between the tags, without the white space around it."""

    think: str
    answer: str


def parts(completion: str) -> Parts | None:
    """The two parts of a completion in the format, None for any other.

    Each tag stands exactly once, neither part is blank, and only white space stands outside of them.
    """
    if any(completion.count(tag) != 1 for tag in TAGS):
        return None
    match = _FORMAT.fullmatch(completion)
    if match is None or not match["think"].strip() or not match["answer"].strip():
        return None
    return Parts(match["think"].strip(), match["answer"].strip())


def tag_format(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:  # noqa: ARG001 - a Component
    """1.0 for a completion in the format, else 0.0."""
    return [0.0 if parts(completion) is None else 1.0 for completion in completions]
