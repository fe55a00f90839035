"""How much of the reference answer's words a completion says."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from rlpipe.rewards.base import Missing
from rlpipe.types import Task

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def token_f1(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
    """F1 over normalised words, in [0, 1]: harmonic mean of precision and recall, counting repetitions.

    Missing where the task has no reference answer. Source: arXiv:1606.05250 section 6.1 (SQuAD).
    """
    return [_score(task, completion) for task, completion in zip(tasks, completions, strict=True)]


def normalised(text: str) -> list[str]:
    """Words in lower case without punctuation and articles, as SQuAD's own script makes them."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _score(task: Task, completion: str) -> float | Missing:
    reference = normalised(task.answer)
    if not reference:
        return Missing("the task has no reference answer")
    said = normalised(completion)
    shared = sum((Counter(reference) & Counter(said)).values())
    return 2 * shared / (len(reference) + len(said))
