"""Which answers are the right number. Every row is a fact: gold, completion, score."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from rlpipe.rewards.base import Missing
from rlpipe.rewards.math_answer import extract, math_answer, number
from rlpipe.types import Task

REALDATA = Path(__file__).parents[3] / "../shared/realdata"

SAME = [
    ("5", "5"), ("5", " 5 \n"), ("5", "5."), ("5", "5.0"), ("5", "+5"), ("5", "05"), ("0.5", ".5"),
    ("-5", "-5"), ("-5", "\u22125"), ("-5", "- 5"),
    ("1000", "1,000"), ("1,000", "1000"), ("1234567", "1,234,567.00"),
    ("5", "$5"), ("5", "$5.00"), ("5", "\\$5"), ("5", "5€"), ("5", "5 €"), ("-5", "-$5"), ("-5", "$-5"),
    ("50", "50%"), ("50", "50 %"), ("50%", "50"), ("50", "50\\%"),
    ("72", "72 clips"), ("72", "72 clips."), ("5", "5 dollars per hour"), ("60", "60 km/h"),
    ("9", "9 m²"), ("9", "9 m^2"), ("20", "20 °C"),
    ("0.5", "1/2"), ("1/2", "0.5"), ("1/3", "2/6"), ("0.5", "\\frac{1}{2}"), ("0.75", "\\dfrac{3}{4} cup"),
    ("1.5", "1 1/2"), ("-1.5", "-1 1/2"), ("12", "12\\text{ apples}"), ("0.1", "0.10"),
    ("9007199254740993", "9007199254740993"),
    ("5", "x = 5"), ("5", "$5$"), ("5", "\\(5\\)"),
    ("5", "**5**"), ("5", "**$5$**"), ("5", "\\boxed{5}"), ("5", "$\\boxed{5}$."), ("1000", "1{,}000"),
    ("0.5", "\\frac12"), ("-0.5", "-\\frac{1}{2}"), ("3.5", "3\\frac{1}{2}"), ("3.5", "3 \\frac12"),
    ("5000", "5 \\times 10^3"), ("0.005", "5 × 10^{-3}"), ("-1250", "-1.25\\times 10^{3}"),
    ("90", "90^\\circ"), ("20", "20^{\\circ} C"), ("12", "12\\mathrm{cm}"),
]  # fmt: skip

DIFFERENT = [
    ("5", "6"), ("5", "-5"), ("5", "55"), ("5", "0.5"), ("5", ""), ("5", "five"), ("5", "answer"),
    ("5", "5 or 6"), ("5", "5, 6"), ("5", "5 6"), ("5", "5/6"), ("5", "4 5"), ("5", "5-6"), ("5", "5 to six"),
    ("5", "5; 6"), ("5", "5\n6"), ("5", "5 and 6"), ("5", "5 not six"), ("5", "[5]6"),
    ("5", "5 hundred"), ("5", "5 thousand dollars"), ("5", "5k"), ("5", "5 half"),
    ("5", "5e3"), ("5", "2+3"), ("5", "5=5"),
    ("1000", "1,00,0"), ("1234", "12,34"), ("1", "1,000"),
    ("-5", "--5"), ("5", "--5"), ("-5", "-$-5"), ("5", "5/0"), ("5", "$"), ("5", "9" * 5000),
    ("9007199254740993", "9007199254740992"),  # equal as floats
    ("0.3333333333333333", "1/3"),
    # Right as expressions, but what was asked is left undone, or done to a few digits.
    ("5", "2 + 3"), ("4", "\\sqrt{16}"), ("8", "2^3"), ("1/3", "0.333333"), ("31/2", "3\\frac{1}{2}"),
    ("5", "x = 5 = 6"), ("5", "x = 6 = 5"), ("5", "6 = 5"), ("5", "5 \\times 10^3"), ("5", "x = 5, y = 6"),
    ("5", "$5$ or $6$"), ("5", "$5$, $6$"), ("5", "\\{5, 6\\}"), ("5", "5 \\pm 1"), ("5", "[4, 6]"),
    ("5", "5 \\text{ or } 6"), ("5", "\\boxed{5} \\boxed{6}"), ("5", "\\boxed{5}, \\boxed{6}"), ("5", "\\boxed{}"),
    ("5", "\\boxed{" * 50_000 + "5" + "}" * 50_000),
]  # fmt: skip


def score(gold: str, completion: str) -> float | Missing:
    return math_answer([Task("t:1", "q", gold)], [completion])[0]


@pytest.mark.parametrize(("gold", "said"), SAME)
def test_the_same_number_however_written(gold: str, said: str) -> None:
    assert score(gold, f"<think>so</think><answer>{said}</answer>") == 1.0


@pytest.mark.parametrize(("gold", "said"), DIFFERENT)
def test_another_number_or_more_than_one(gold: str, said: str) -> None:
    assert score(gold, f"<think>so</think><answer>{said}</answer>") == 0.0


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer>5</answer>", "5"),
        ("<think>#### 7 \\boxed{8}</think><answer>5</answer>", "5"),
        ("so\n#### 5", " 5"),
        ("so \\boxed{5}.", "5"),
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        # A list of guesses is no answer, nor is a mark left open, nor a number without a mark.
        ("<answer>5</answer><answer>6</answer>", None),
        ("<answer>5</answer> <answer>", None),
        ("<answer>5", None),
        ("</answer>5<answer>", None),
        ("<answer>5 #### 5", None),
        ("#### 5\n#### 6", None),
        ("\\boxed{5} \\boxed{6}", None),
        ("\\boxed{5", None),
        ("5", None),
        ("", None),
        # The last resort: the last line that says so.
        ("the answer is 5", "5"),
        ("So the answer is: $5.", "$5."),
        ("Q: 2+3?\nA: 5", "5"),
        ("**Final Answer:** 5", "5"),
        ("**Answer: 5**", "5"),
        ("> Answer: 5 apples", "5 apples"),
        ("The answer is 4. Wait.\nThe answer is 5.\nThank you!", "5."),
        ("A: The answer is 5.", "5."),
        ("<think>the answer is 4</think>Hence the answer is 5", "5"),
        ("<think>the answer is 5</think>I am done.", None),
        ("The answer is 5 and the answer is 6", None),
        ("The answer is 5 or 6", "5 or 6"),
        ("A: 5, 6, 7", "5, 6, 7"),
        ("A\n5", None),
        ("Banana: 5", None),
        # Not where another mark stands: that one counts, or nothing does.
        ("\\boxed{4} so the answer is 5", "4"),
        ("\\boxed{4} \\boxed{5} so the answer is 5", None),
        ("<answer> the answer is 5", None),
    ],
)
def test_the_answer_committed_to(completion: str, answer: str | None) -> None:
    assert extract(completion) == answer


def test_a_gold_that_is_no_number_gives_no_score() -> None:
    missing = score("a reference text", "<answer>5</answer>")
    assert isinstance(missing, Missing)
    assert "'a reference text' is no number, and no expression" in missing.reason
    assert isinstance(score("", "<answer></answer>"), Missing)
    assert score("a reference text", "") == missing, "whatever the completion: it is the data's fault"


def test_the_gold_may_be_a_whole_solution() -> None:
    assert score("6+6=12\n#### 12", "#### 12") == 1.0
    assert score("6+6=\\boxed{12}", "#### 12") == 1.0
    assert score("6+6=\\boxed{12}", "#### 6") == 0.0


def test_arithmetic_is_exact() -> None:
    assert number("0.1") == Fraction(1, 10)
    assert number("1/3") == Fraction(1, 3)


def test_a_long_answer_is_read_in_linear_time() -> None:
    # Without care a regular expression for units takes minutes on this.
    assert score("5", f"<answer>5 {'a' * 100_000}!</answer>") == 0.0
    assert score("5", f"<answer>5{' ' * 10_000}!</answer>") == 0.0


def test_all_real_golds_match_themselves_and_no_neighbour() -> None:
    if not REALDATA.is_dir():
        pytest.skip("../shared/realdata is not beside this checkout")
    lines = [line for name in ("train", "test") for line in (REALDATA / f"gsm8k/{name}.jsonl").open(encoding="utf-8")]
    solutions = [json.loads(line)["answer"] for line in lines]
    golds = [solution.rpartition("####")[2].strip() for solution in solutions]
    tasks = [Task(str(n), "q", gold) for n, gold in enumerate(golds)]
    assert math_answer(tasks, solutions) == [1.0] * 8792
    # The whole solution as the task's answer is the same question.
    assert math_answer([Task(str(n), "q", solution) for n, solution in enumerate(solutions)], solutions) == [1.0] * 8792
    # Against the next row's solution: right only where both golds are the same number.
    neighbours = [*solutions[1:], solutions[0]]
    same = [number(a) == number(b) for a, b in zip(golds, [*golds[1:], golds[0]], strict=True)]
    assert math_answer(tasks, neighbours) == [float(equal) for equal in same]
    assert 0 < sum(same) < 200
