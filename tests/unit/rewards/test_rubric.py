"""The rubric judge: grades by hand, and what does not pay."""

from __future__ import annotations

import pytest

from rlpipe.rewards.judges.base import Pair, Verdict
from rlpipe.rewards.judges.rubric import RUBRIC, RubricJudge

PROMPT = "7+12-4"  # 7+12=19, 19-4=15


def judge(think: str, answer: str, prompt: str = PROMPT) -> float:
    return RubricJudge().score(prompt, f"<think>{think}</think><answer>{answer}</answer>").score


def test_the_shares_add_up_to_one() -> None:
    assert sum(RUBRIC.values()) == pytest.approx(1.0)


# format 0.1, arithmetic 0.4, follows 0.3, answer 0.2
@pytest.mark.parametrize(
    ("think", "answer", "score"),
    [
        ("7+12=19 19-4=15", "15", 1.0),
        # One of two steps wrong and carried on: 0.1 + 0.4/2 + 0.3 + 0.2
        ("7+12=18 18-4=14", "14", 0.8),
        ("7+12=19 19-4=16", "16", 0.8),
        # Right working, another answer: 0.1 + 0.4 + 0.3
        ("7+12=19 19-4=15", "16", 0.8),
        # A step left out: half of arithmetic, half of follows, the answer is its result: .1 + .2 + .15 + .2
        ("7+12=19", "19", 0.65),
        # The second step starts elsewhere: follows is half: 0.1 + 0.4 + 0.15 + 0.2
        ("7+12=19 18-4=14", "14", 0.85),
        # True, but another question: nothing follows: 0.1 + 0.4 + 0.2
        ("1+1=2 2+1=3", "3", 0.7),
        # A true step more than needed: arithmetic 3/3, follows 2/3: 0.1 + 0.4 + 0.2 + 0.2
        ("7+12=19 19-4=15 15+0=15", "15", 0.9),
        # Not a step at all: format alone.
        ("fifteen", "15", 0.1),
    ],
)
def test_grades_by_hand(think: str, answer: str, score: float) -> None:
    assert judge(think, answer) == pytest.approx(score)


@pytest.mark.parametrize("response", ["", "15", "7+12=19 19-4=15", "<think>7+12=19 19-4=15</think>15"])
def test_out_of_the_format_nothing_counts(response: str) -> None:
    assert RubricJudge().score(PROMPT, response) == Verdict(0.0)


def test_only_a_right_answer_with_all_its_steps_scores_one() -> None:
    full = {
        (first, second)
        for first in range(40) for second in range(40)
        if judge(f"7+12={first} {first}-4={second}", str(second)) > 0.999
    }  # fmt: skip
    assert full == {(19, 15)}


@pytest.mark.parametrize("idle", [1, 5, 50])
def test_true_but_idle_steps_do_not_pay(idle: int) -> None:
    padded = " ".join(["7+12=19", "19-4=15"] + ["15+0=15"] * idle)
    assert judge(padded, "15") < judge("7+12=19 19-4=15", "15")


@pytest.mark.parametrize("prompt", ["What is love?", "7*3", "7", "7+12-4 please"])
def test_a_question_it_cannot_read_has_no_score(prompt: str) -> None:
    verdict = RubricJudge().score(prompt, "<think>7+12=19</think><answer>19</answer>")
    assert verdict.score is None
    assert "chains" in verdict.missing


def test_grades_within_the_margin_are_a_tie() -> None:
    right, slip = (f"<think>7+12={n} {n}-4={n - 4}</think><answer>{n - 4}</answer>" for n in (19, 20))
    by_margin = {
        margin: RubricJudge(tie_margin=margin).choices([Pair(PROMPT, slip, right)])[0].winner
        for margin in (0.0, 0.19, 0.21)
    }
    # Of two steps one is calculated wrong: half of the 0.4 that arithmetic weighs.
    assert by_margin == {0.0: "second", 0.19: "second", 0.21: "tie"}
