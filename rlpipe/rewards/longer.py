"""A reward with a hole, planted to try the watch with: the longer, the better. Never what anyone wants."""

from __future__ import annotations

from collections.abc import Sequence

from rlpipe.rewards.base import Missing
from rlpipe.types import Task

# A completion of so many characters scores 1; a longer one more.
_CHARACTERS = 100


def longer(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:  # noqa: ARG001 - a Component
    """Characters of the completion, in hundreds."""
    return [len(text) / _CHARACTERS for text in completions]
