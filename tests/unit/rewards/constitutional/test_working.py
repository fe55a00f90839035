"""What a program finds wrong in a chain's working, in words, and what it makes of the response."""

from __future__ import annotations

import random

import pytest

from rlpipe.rewards.constitutional.faults import FAULTS, faulty
from rlpipe.rewards.constitutional.working import BROKEN, INSPECTIONS, NOTHING, inspect, solution

RIGHT = "<think>6-2=4 4+1=5 5-3=2</think><answer>2</answer>"
SHORT = "<think>6-2=4 4+1=5</think><answer>5</answer>"
SLIP = "<think>6-2=5 5+1=6 6-3=3</think><answer>3</answer>"
ASTRAY = "<think>6-2=4 4-1=3 3-3=0</think><answer>0</answer>"
LONG = "<think>6-2=4 4+1=5 5-3=2 2+2=4</think><answer>4</answer>"
MISSTATED = "<think>6-2=4 4+1=5 5-3=2</think><answer>7</answer>"


@pytest.mark.parametrize("item", INSPECTIONS)
def test_nothing_is_wrong_with_the_solution_and_it_stays_as_it_is(item: str) -> None:
    assert solution("6-2+1-3") == RIGHT
    found = inspect(item, "6-2+1-3", RIGHT)
    assert (found.critique, found.corrected, found.is_clean) == (NOTHING, RIGHT, True)


@pytest.mark.parametrize(
    ("item", "response", "critique", "corrected"),
    [
        ("arithmetic", SLIP, "6-2=5 is wrong: it is 4.", RIGHT),
        ("follows", SHORT, "-3 is left out.", RIGHT),
        ("follows", ASTRAY, "4-1=3 should be 4+1=5.", RIGHT),
        ("follows", LONG, "2+2=4 is too much.", RIGHT),
        ("answer", MISSTATED, "The answer is 2.", RIGHT),
        ("format", "6-2=4", BROKEN, RIGHT),
        ("arithmetic", "6-2=4", BROKEN, RIGHT),
    ],
)
def test_a_fault_is_named_and_mended(item: str, response: str, critique: str, corrected: str) -> None:
    found = inspect(item, "6-2+1-3", response)
    assert (found.critique, found.corrected) == (critique, corrected)


def test_a_fault_of_another_kind_is_left_as_it_is() -> None:
    # Short and with a slip: who mends the steps does not add the one that is missing.
    both = "<think>6-2=5 5+1=6</think><answer>6</answer>"
    assert inspect("arithmetic", "6-2+1-3", both).corrected == SHORT
    assert inspect("answer", "6-2+1-3", SLIP).is_clean


@pytest.mark.parametrize("item", FAULTS)
def test_a_planted_fault_is_found_and_mended_into_the_solution(item: str) -> None:
    for seed in range(50):
        response = faulty(item, "6-2+1-3", random.Random(seed))
        found = inspect(item, "6-2+1-3", response)
        assert not found.is_clean, response
        assert found.corrected == RIGHT, response
