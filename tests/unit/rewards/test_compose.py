"""Weighted sums; a missing score is never 0."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rlpipe.errors import ConfigError
from rlpipe.rewards import JUDGES, VERIFIERS, Missing, components, compose
from rlpipe.rewards.base import Component
from rlpipe.types import Scored, Task

TASKS = [Task("t:1", "7+5", "12"), Task("t:2", "what is love?", "12")]


def constant(*scores: float | Missing) -> Component:
    def component(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
        return list(scores)

    return component


def test_the_total_is_the_weighted_sum() -> None:
    # 2 * 1.0 + 0.5 * 0.4 = 2.2; and -0.5 * 0.4 takes away.
    parts = {"a": constant(1.0, 0.0), "b": constant(0.4, 0.4), "unused": constant()}
    first, second = compose({"a": 2.0, "b": 0.5}, parts)(TASKS, ["x", "y"])
    assert first == Scored(total=pytest.approx(2.2), components={"a": 1.0, "b": 0.4}, missing="")
    assert second.total == pytest.approx(0.2)
    assert compose({"b": -0.5}, parts)(TASKS, ["x", "y"])[0].total == pytest.approx(-0.2)


def test_one_missing_component_leaves_no_total_and_keeps_the_others() -> None:
    reward = compose({"a": 1.0, "b": 1.0}, {"a": constant(1.0, 1.0), "b": constant(Missing("judge is down"), 0.0)})
    assert reward(TASKS, ["x", "y"]) == [
        Scored(total=None, components={"a": 1.0}, missing="b: judge is down"),
        Scored(total=1.0, components={"a": 1.0, "b": 0.0}, missing=""),
    ]


def test_an_unknown_component_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"reward\.math_anser: no such component\. Did you mean 'math_answer'\?"):
        compose({"math_anser": 1.0}, VERIFIERS)


def test_the_judge_is_a_component_like_the_others() -> None:
    known = components("rubric")
    assert set(known) == {*VERIFIERS, "judge"}
    right, unjudged = compose({"judge": 1.0}, known)(TASKS, ["<think>7+5=12</think><answer>12</answer>"] * 2)
    assert right.total == pytest.approx(1.0)
    assert unjudged.total is None
    assert unjudged.missing.startswith("judge: the rubric judge grades chains")


def test_an_unknown_judge_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"judge\.kind=rubrik: no such judge"):
        components("rubrik")


@pytest.mark.parametrize("name", [*VERIFIERS, "judge"])
def test_every_component_answers_once_for_each_completion(name: str) -> None:
    component = components(next(iter(JUDGES)))[name]
    completions = ["", "<think>7+5=12</think><answer>12</answer>", "\u2603" * 50]
    found = component([TASKS[0]] * 3, completions)
    assert len(found) == 3
    assert all(isinstance(score, Missing) or 0.0 <= score <= 1.0 for score in found)
    assert component([], []) == []
