"""Weighted sums; a missing score is never 0."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rlpipe.config.schema import RewardPart
from rlpipe.errors import ConfigError, RewardError
from rlpipe.rewards import JUDGES, VERIFIERS, Missing, compose, judged, stopping
from rlpipe.rewards.base import Component
from rlpipe.rewards.options import bound
from rlpipe.types import Scored, Task

# What the components that cannot do without options are asked here; nothing listens on port 9.
OPTIONS = {
    "length": {"max_length": 20, "cache_length": 10, "unit": "characters"},
    "repetition": {"n": 2},
    "http": {"url": "http://127.0.0.1:9/", "retries": 0},
}
TASKS = [Task("t:1", "7+5", "12"), Task("t:2", "what is love?", "12")]


def constant(*scores: float | Missing) -> Component:
    def component(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
        return list(scores)

    return component


def test_the_total_is_the_weighted_sum() -> None:
    # 2 * 1.0 + 0.5 * 0.4 = 2.2; and -0.5 * 0.4 takes away.
    known = {"a": constant(1.0, 0.0), "b": constant(0.4, 0.4), "unused": constant()}
    first, second = compose({"a": 2.0, "b": 0.5}, known)(TASKS, ["x", "y"])
    parts = {"a": 2.0, "b": pytest.approx(0.2)}
    assert first == Scored(total=pytest.approx(2.2), components={"a": 1.0, "b": 0.4}, missing="", parts=parts)
    assert second.total == pytest.approx(0.2)
    assert compose({"b": -0.5}, known)(TASKS, ["x", "y"])[0].total == pytest.approx(-0.2)


def test_one_missing_component_leaves_no_total_and_keeps_the_others() -> None:
    reward = compose({"a": 1.0, "b": 1.0}, {"a": constant(1.0, 1.0), "b": constant(Missing("judge is down"), 0.0)})
    assert reward(TASKS, ["x", "y"]) == [
        Scored(total=None, components={"a": 1.0}, missing="b: judge is down", parts={"a": 1.0}),
        Scored(total=1.0, components={"a": 1.0, "b": 0.0}, missing="", parts={"a": 1.0, "b": 0.0}),
    ]


def test_an_unknown_component_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"reward\.math_anser: no such component\. Did you mean 'math_answer'\?"):
        compose({"math_anser": 1.0}, VERIFIERS)


def test_the_judge_is_a_component_like_the_others() -> None:
    scorer = compose({"judge": 1.0}, {"judge": judged(JUDGES["rubric"])})
    right, unjudged = scorer(TASKS, ["<think>7+5=12</think><answer>12</answer>"] * 2)
    assert right.total == pytest.approx(1.0)
    assert unjudged.total is None
    assert unjudged.missing.startswith("judge: the rubric judge grades chains")


@pytest.mark.parametrize("name", [*VERIFIERS, "judge"])
def test_every_component_answers_once_for_each_completion(name: str) -> None:
    known = {**VERIFIERS, "judge": judged(JUDGES["rubric"])}
    component = bound(known[name], OPTIONS.get(name, {}), f"reward.{name}")
    completions = ["", "<think>7+5=12</think><answer>12</answer>", "\u2603" * 50]
    found = component([TASKS[0]] * 3, completions)
    assert len(found) == 3
    assert all(isinstance(score, Missing) or -1.0 <= score <= 1.0 for score in found)
    assert component([], []) == []


def asked_of(seen: list[list[str]], *scores: float | Missing) -> Component:
    """A component that notes what it was asked, and answers by the completion's first letter."""

    def component(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
        seen.append(list(completions))
        return [scores["abcd".index(text[0])] for text in completions]

    return component


FOUR = [Task(f"t:{n // 2}", "q", "1") for n in range(4)]  # two prompts with two samples each


def test_behind_a_closed_gate_nothing_is_asked_and_the_score_is_zero() -> None:
    seen: list[list[str]] = []
    parts = {"maths": RewardPart(weight=1.0, gate="format"), "format": 0.5}
    known = {"format": constant(1.0, 0.0, Missing("torn"), 1.0), "maths": asked_of(seen, 1.0, 1.0, 1.0, 0.25)}
    scored = compose(parts, known)(FOUR, ["a", "b", "c", "d"])
    assert seen == [["a", "d"]]
    # 1 + 0.5; closed: 0 + 0; the gate itself is missing; 0.25 + 0.5.
    assert [s.total for s in scored] == [1.5, 0.0, None, 0.75]
    assert scored[1].components == {"maths": 0.0, "format": 0.0}
    assert scored[2].missing == "maths: its gate format is missing; format: torn"


def test_a_gate_opens_at_its_minimum_and_gates_may_stand_in_a_row() -> None:
    parts = {
        "c": RewardPart(weight=1.0, gate="b", gate_min=0.5),
        "b": RewardPart(weight=0.0, gate="a"),
        "a": RewardPart(weight=0.0),
    }
    known = {"a": constant(1.0, 1.0, 1.0, 0.0), "b": asked_of([], 0.5, 0.4, 0.9, 0.9), "c": constant(1.0, 1.0)}
    # b is asked for the first three and answers .5, .4, .9; c for those with b >= 0.5: the first and the third.
    assert [s.total for s in compose(parts, known)(FOUR, ["a", "b", "c", "d"])] == [1.0, 0.0, 1.0, 0.0]


def test_norm_takes_the_batch_or_each_prompts_own_samples() -> None:
    known = {"a": constant(0.0, 2.0, 4.0, 4.0)}
    # mean 2.5, spread sqrt((6.25 + .25 + 2.25 + 2.25) / 4) = sqrt(2.75) = 1.658312
    batch = compose({"a": RewardPart(weight=2.0, norm="batch")}, known)(FOUR, [""] * 4)
    assert [s.total for s in batch] == pytest.approx([2 * (x - 2.5) / 1.6583124 for x in (0, 2, 4, 4)])
    assert [s.components["a"] for s in batch] == [0.0, 2.0, 4.0, 4.0], "what is kept is the score as given"
    # Of (0, 2): mean 1, spread 1. Of (4, 4): no spread, so 0.
    group = compose({"a": RewardPart(weight=1.0, norm="group")}, known)(FOUR, [""] * 4)
    assert [s.total for s in group] == [-1.0, 1.0, 0.0, 0.0]


def test_a_missing_score_takes_no_part_in_a_norm() -> None:
    known = {"a": constant(0.0, 2.0, Missing("gone"), 1.0)}
    # (0, 2, 1): mean 1, spread sqrt(2/3)
    totals = [s.total for s in compose({"a": RewardPart(weight=1.0, norm="batch")}, known)(FOUR, [""] * 4)]
    assert totals == [pytest.approx(-(1.5**0.5)), pytest.approx(1.5**0.5), None, 0.0]


def test_a_clip_comes_after_the_norm_and_before_the_weight() -> None:
    known = {"a": constant(0.0, 2.0, 4.0, 4.0)}
    parts = {"a": RewardPart(weight=10.0, norm="group", clip=[-0.5, 0.25])}
    assert [s.total for s in compose(parts, known)(FOUR, [""] * 4)] == [-5.0, 2.5, 0.0, 0.0]


def test_the_run_stops_above_the_share_that_may_be_missing() -> None:
    reward = compose({"a": 1.0}, {"a": constant(1.0, Missing("status 503"), 0.0, Missing("torn"))})
    assert [s.total for s in stopping(reward, 0.5)(FOUR, [""] * 4)] == [1.0, None, 0.0, None]
    with pytest.raises(RewardError) as error:
        stopping(reward, 0.49)(FOUR, [""] * 4)
    assert "rewards.max_missing=0.49: 2 of 4 completions" in str(error.value)
    assert "1 × a: status 503; 1 × a: torn" in str(error.value)


def test_reasons_beyond_the_most_frequent_are_summed_up() -> None:
    reasons = [Missing(f"reason {n}") for n in (1, 1, 1, 2, 2, 3, 4, 5, 6, 7)]
    tasks = [Task(str(n), "q", "1") for n in range(10)]
    with pytest.raises(RewardError, match=r"3 × a: reason 1; 2 × a: reason 2; .*; 2 × other reasons\. A missing"):
        stopping(compose({"a": 1.0}, {"a": constant(*reasons)}), 0.1)(tasks, [""] * 10)
