"""The visible format: `<think>…</think><answer>…</answer>`, once, in this order, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlpipe.rewards.base import Missing
from rlpipe.types import Task

_FORMAT = re.compile(r"\s*<think>(?P<think>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
# A block with its tags; one that the end cut off is open to the end.
_BLOCK = re.compile(r"<(think|answer)>.*?(?:</\1>|\Z)", re.DOTALL)
# What marks an answer outside of tags: more than one is a list of guesses.
_MARKS = ("####", "\\boxed")


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


def tricky(completion: str) -> bool:
    """Whether a completion does more with the marks of an answer than to answer once.

    So it does with a tag or another mark of an answer that stands twice, and with text beside its tags where it has
    any. A completion that is merely cut off, or has no tags at all, does not.
    """
    if any(completion.count(mark) > 1 for mark in (*TAGS, *_MARKS)):
        return True
    return any(tag in completion for tag in TAGS) and bool(_BLOCK.sub("", completion).strip())
