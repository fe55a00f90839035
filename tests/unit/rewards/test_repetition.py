"""Repeated n-grams, counted by hand."""

from __future__ import annotations

import pytest

from rlpipe.rewards.repetition import repetition
from rlpipe.types import Task

TASK = Task("t", "q", "")


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b c d", 2, 0.0),  # ab bc cd
        ("a b a b", 2, 1 / 3),  # ab ba ab: 2 distinct of 3
        ("So so SO", 1, 2 / 3),  # the case does not count: 1 distinct of 3
        ("x x x x x", 2, 3 / 4),  # xx four times: 1 distinct of 4
        ("too short", 3, 0.0),
        ("", 1, 0.0),
    ],
)
def test_the_share_of_repeated_word_ngrams(text: str, n: int, share: float) -> None:
    assert repetition([TASK], [text], n=n) == [pytest.approx(share)]


def test_characters_see_what_has_no_spaces() -> None:
    # aaaa: aa three times, 1 distinct of 3.
    assert repetition([TASK], ["aaaa"], n=2, unit="characters") == [pytest.approx(2 / 3)]
    assert repetition([TASK], ["aaaa"], n=2) == [0.0]
