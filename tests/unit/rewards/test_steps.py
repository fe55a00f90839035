"""The steps of a response, and which of them are right."""

import pytest

from rlpipe.rewards.steps import Step, judged_steps, step_ends
from rlpipe.types import Task

TASK = Task("t", "3+6-2", "7")


def test_each_calculation_and_the_answer_is_a_step():
    text = "<think>3+6=9 9-2=8</think><answer>8</answer>"
    #       0123456789012345678
    assert judged_steps(TASK, text) == [Step(12, True), Step(18, False), Step(len(text), False)]


def test_stopping_short_is_a_wrong_answer_after_right_steps():
    assert [step.is_right for step in judged_steps(TASK, "<think>3+6=9</think><answer>9</answer>")] == [True, False]


@pytest.mark.parametrize(
    ("text", "is_right"),
    [("48/2=24", True), ("1.5*4=6", True), ("7 - 9 = -2", True), ("5/0=0", False), ("1/3=0.33", False)],
)
def test_arithmetic_is_exact(text, is_right):
    assert [step.is_right for step in judged_steps(TASK, text)] == [is_right]


def test_a_response_without_steps_has_none():
    assert judged_steps(TASK, "I do not know") == []


def test_ends_need_no_gold_answer():
    text = "<think>3+6=9 9-2=8</think><answer>8</answer> and 1+1=3"
    assert step_ends(text) == [step.end for step in judged_steps(TASK, text)]
