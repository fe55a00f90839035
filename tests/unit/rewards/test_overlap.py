"""F1 of words, by hand."""

from __future__ import annotations

import pytest

from rlpipe.rewards.base import Missing
from rlpipe.rewards.overlap import token_f1
from rlpipe.types import Task


@pytest.mark.parametrize(
    ("reference", "said", "f1"),
    [
        ("The capital is Paris.", "capital is paris", 1.0),  # case, article and full stop do not count
        ("Paris", "London", 0.0),
        ("Paris", "", 0.0),
        # shared {red, fox} = 2; precision 2/4, recall 2/3: 2 * 2 / (4 + 3)
        ("red fox runs", "red fox is here", 4 / 7),
        # a word counts as often as both say it: "no" twice of 3 and 2; 2 * 2 / (3 + 2)
        ("no no no", "no no", 4 / 5),
    ],
)
def test_f1_by_hand(reference: str, said: str, f1: float) -> None:
    assert token_f1([Task("t", "q", reference)], [said]) == [pytest.approx(f1)]


def test_no_reference_is_no_score() -> None:
    assert (
        token_f1([Task("t", "q", ""), Task("t", "q", "The.")], ["", ""])
        == [Missing("the task has no reference answer")] * 2
    )
