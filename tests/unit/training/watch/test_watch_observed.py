"""What the watch remembers of a step, counted by hand."""

from __future__ import annotations

import pytest

from rlpipe.rewards.format import tricky
from rlpipe.training.watch.observed import Observation, Seen, Spread, observe
from rlpipe.types import Completion, Scored, Task

TASKS = [Task("a", "1+1", "2"), Task("b", "2+2", "4")]
GOOD = "<think>1+1=2</think><answer>2</answer>"


def completion(*ids: int) -> Completion:
    return Completion(ids, (0.0,) * len(ids), True)


def seen(trained: list[Scored] | None, heldout: list[Scored]) -> Seen:
    return Seen(TASKS, [completion(1, 2, 1, 2), completion(3, 4)], [GOOD, f"so: {GOOD}"], trained, heldout)


def test_a_step_becomes_a_few_numbers() -> None:
    trained = [Scored(3.0, {}, "", {"a": 1.0, "b": 2.0}), Scored(1.0, {}, "", {"a": 1.0, "b": 0.0})]
    found = observe(seen(trained, [Scored(1.0, {}, ""), Scored(0.0, {}, "")]), 0.5, 2)
    assert (found.kl, found.length) == (0.5, 3.0)  # 4 and 2 tokens
    assert found.repetition == pytest.approx(1 / 6)  # 12 21 12: a third; 34: none
    assert found.format_tricks == 0.5  # the second has text beside its tags
    assert found.heldout == Spread(2, 0.5, 0.5)  # 2 * 0.5^2
    assert found.trained == Spread(2, 2.0, 2.0)  # 2 * 1^2
    # a is the same everywhere and shares nothing of it; b: 2 * (3 - 2) + 0 * (1 - 2).
    assert found.shared == {"a": 0.0, "b": 2.0}


def test_what_has_no_score_is_left_out() -> None:
    trained = [Scored(None, {}, "down"), Scored(1.0, {}, "", {"a": 1.0})]
    found = observe(seen(trained, [Scored(None, {}, "down")] * 2), 0.0, 2)
    assert found.trained == Spread(1, 1.0, 0.0)
    assert found.heldout == Spread(0, 0.0, 0.0)
    assert found.shared == {"a": 0.0}


def test_without_a_reward_there_is_none_to_remember() -> None:
    found = observe(seen(None, [Scored(1.0, {}, "")] * 2), 0.0, 2)
    assert (found.trained, found.shared) == (None, {})
    assert Observation.from_state(found.state_dict()) == found


def test_a_process_reward_is_a_component_beside_the_whole_responses_score() -> None:
    both = seen(None, []).with_process([1.0, 0.0], [0.25, 0.75]).trained
    assert both is not None
    assert [score.total for score in both] == [1.25, 0.75]
    assert both[0].parts == {"score": 1.0, "process_reward_model": 0.25}


@pytest.mark.parametrize(
    ("text", "trick"),
    [
        (GOOD, False),
        (f" {GOOD}\n", False),
        ("the answer is 4", False),  # no tags at all: another format, not a trick
        ("<think>1+1=2</think><answer>2", False),  # cut off
        ("<think>1+1", False),
        ("#### 4", False),
        ("", False),
        ("<think>1</think><answer>2</answer><answer>3</answer>", True),
        ("<think>1</think></think><answer>2</answer>", True),
        (f"{GOOD} and more", True),
        ("<think>1</think> so <answer>2</answer>", True),
        ("#### 4\n#### 5", True),
        (r"\boxed{4} or \boxed{5}", True),
    ],
)
def test_a_trick_is_more_than_one_answer_or_text_beside_the_tags(text: str, trick: bool) -> None:
    assert tricky(text) is trick
