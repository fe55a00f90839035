"""Answers that are expressions: what is the same, what is not, and that nothing can make the comparison hang."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from rlpipe.rewards import symbolic
from rlpipe.rewards.base import Missing
from rlpipe.rewards.math_answer import math_answer
from rlpipe.types import Task

SAME = [
    (r"2\sqrt{3}", r"\sqrt{12}"), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"), (r"\frac{\pi}{2}", r"\pi/2"),
    ("x^2+2x+1", "(x+1)^2"), ("3x+4", "4 + 3*x"), ("0.5x", r"\frac{x}{2}"), (r"\sin^2 x", r"1-\cos^2 x"),
    ("1, 2", "2, 1"), (r"\{1, 2\}", "2,1"), (r"\pm 2", "-2, 2"), ("(1, 2)", "(1,2)"), ("[-2, 7)", r"[-2,7)"),
    ("y = 2x+3", "2x+3"), (r"2\sqrt{3}", r"x = 2\sqrt{3}"), ("2x+3", "f(x) = 3+2x"), ("x > 3", "3 < x"),
    ("B", "(B)"), (r"\text{even}", r"\text{even}"), (r"2\sqrt{3}", r"$2\sqrt{3}$."),
    (r"2\sqrt{3}", r"2\sqrt{3}\text{ cm}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"), (r"\sqrt{16}", "4"),
    (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"), (r"\boxed{2\sqrt{3}}", r"\sqrt{12}"),
]  # fmt: skip

DIFFERENT = [
    (r"2\sqrt{3}", r"2\sqrt{5}"), (r"2\sqrt{3}", "3.4641016"), (r"\frac{\pi}{2}", "1.5708"), ("2x+3", "2y+3"),
    ("(1, 2)", "(2, 1)"), ("[-2, 7]", "(-2, 7)"), ("B", "C"), ("x > 3", "x < 3"), ("y = 2x+3", "z = 2x+3"),
    # Lists of guesses, however they are written.
    (r"\sqrt{2}", r"\sqrt{2}, \sqrt{3}"), (r"\sqrt{2}", r"\sqrt{2} \text{ or } \sqrt{3}"),
    (r"\sqrt{2}", r"\sqrt{3} = \sqrt{2}"), (r"\sqrt{2}", r"x = \sqrt{3} = \sqrt{2}"),
    (r"\sqrt{2}", r"a + 1 = \sqrt{2}"),
    (r"\sqrt{2}", r"\{\sqrt{2}, \sqrt{3}\}"), (r"\sqrt{2}", r"\pm\sqrt{2}"), (r"\sqrt{2}", r"$\sqrt{2}$ $\sqrt{3}$"),
    (r"\sqrt{2}", r"\sqrt{2}} \boxed{\sqrt{3}"), (r"\sqrt{2}", r"\sqrt{3}; \sqrt{2}"), (r"\sqrt{2}", r"[\sqrt{2}, 9]"),
    (r"\sqrt{2}", r"\sqrt{3} \approx \sqrt{2}"), (r"\sqrt{2}", "\\sqrt{3}\n\\sqrt{2}"), ("B", "A, B"), ("B", "A or B"),
    ("B", "ABCD"), ("1, 2", "1, 2, 3"), ("1, 2", "1"),
    # Prose, and what nobody can read.
    (r"\sqrt{2}", "the root of two"), (r"\sqrt{2}", ""), (r"\sqrt{2}", r"\sqrt{"), (r"\sqrt{2}", r"\frac{\sqrt{2}}{0}"),
    (r"\sqrt{2}", "__import__('os')"), (r"\sqrt{2}", "x" * 10_000),
]  # fmt: skip


def score(gold: str, said: str) -> float | Missing:
    return math_answer([Task("t", "q", gold)], [f"<answer>{said}</answer>"])[0]


@pytest.mark.parametrize(("gold", "said"), SAME)
def test_the_same_expression_however_written(gold: str, said: str) -> None:
    assert score(gold, said) == 1.0


@pytest.mark.parametrize(("gold", "said"), DIFFERENT)
def test_another_expression_or_more_than_one(gold: str, said: str) -> None:
    assert score(gold, said) == 0.0


@pytest.mark.parametrize("gold", ["yes or no", r"\frac{1}{", "1 = 2", "Paris is the capital", "a\nb"])
def test_a_gold_that_is_no_expression_gives_no_score(gold: str) -> None:
    assert isinstance(score(gold, "5"), Missing)


@pytest.mark.parametrize(
    "text",
    [
        r"\sqrt{2} \text{ or } \sqrt{3}",
        r"\sqrt{2} \approx 1.41",
        r"\sqrt{2}} {x",
        r"\sqrt{2",
        r"\boxed{1} \boxed{2}",
        "1 = 2",
    ],
)
def test_what_is_not_one_expression_is_not_put_to_the_library(text: str) -> None:
    assert symbolic.expression(text) is None


@pytest.mark.parametrize("text", ["x", "**$x$**.", r"\(x\)", r"\[ x \]", r"\boxed{x}", "$$x$$"])
def test_marks_around_an_expression_are_no_part_of_it(text: str) -> None:
    assert symbolic.expression(text) == "x"


def test_it_works_outside_of_the_main_thread() -> None:
    found: list[float | Missing] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(score(f"{n + 2}\\sqrt{{3}}", f"\\sqrt{{{3 * (n + 2) ** 2}}}")))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1.0] * 4


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker with 0.6 seconds a comparison in place of 3, so that the tests are short."""
    monkeypatch.setattr(symbolic, "_CPU_S", 0.6)
    worker = symbolic._Worker()
    monkeypatch.setattr(symbolic, "_WORKER_PROCESS", worker)
    yield
    worker._end()


@pytest.mark.parametrize("bomb", [r"10^{10^{10^{10}}}", r"(x+y+z+w)^{9999}", r"999999999999!"])
def test_what_would_take_for_ever_is_another_answer(bomb: str, hurried: None) -> None:
    assert score(r"\sqrt{2}", bomb) == 0.0
    symbolic.equal.cache_clear()
    assert score(r"\sqrt{2}", r"\sqrt{2}") == 1.0, "and the next comparison is made"


def test_a_worker_that_was_ended_meanwhile_is_replaced() -> None:
    assert score(r"\sqrt{5}", r"\sqrt{5}\cdot 1") == 1.0
    process = symbolic._WORKER_PROCESS._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert score(r"\sqrt{5}", r"\frac{5}{\sqrt{5}}") == 1.0
    assert symbolic._WORKER_PROCESS._process is not process


def test_a_worker_ended_over_a_question_leaves_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    assert score(r"\sqrt{7}", r"\frac{7}{\sqrt{7}}") == 1.0
    process = symbolic._WORKER_PROCESS._process
    assert process is not None
    # Stopped, it takes the question and does not answer; then it is ended, as an operator might.
    os.kill(process.pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, [process.pid, signal.SIGKILL]).start()
    assert score(r"\sqrt{7}", r"\sqrt{7}+0") == Missing("the comparing process was ended from outside")


def test_one_that_does_not_answer_leaves_no_score_either(monkeypatch: pytest.MonkeyPatch) -> None:
    assert score(r"\sqrt{7}", r"\frac{14}{2\sqrt{7}}") == 1.0
    process = symbolic._WORKER_PROCESS._process
    assert process is not None
    monkeypatch.setattr(symbolic, "_ANSWER_S", 0.2)
    os.kill(process.pid, signal.SIGSTOP)
    assert score(r"\sqrt{7}", r"\sqrt{7}+0+0") == Missing("the comparison has not answered within 0.2 s")
    assert process.poll() is not None, "it is not left behind"
