"""Lessons ask what is asked later, word for word, and their replies are the program's."""

from __future__ import annotations

from rlpipe.rewards.constitutional.lessons import lessons
from rlpipe.rewards.constitutional.principles import Principle
from rlpipe.rewards.judges.fence import Fence

FOLLOWS = Principle("terms", "Which term?", "Use all.", "Used?", "follows")
SHORT = "<think>6-2=4</think><answer>4</answer>"
RIGHT = "<think>6-2=4 4+1=5</think><answer>5</answer>"


def test_a_response_is_three_lessons_under_one_principle() -> None:
    fence = Fence("key")
    verdict, critique, revision = lessons([("6-2+1", SHORT)], [FOLLOWS], fence, planted=False, seed=17)
    assert (verdict.question, verdict.reply) == (f"Used? 6-2+1 {SHORT}", "0")
    assert (critique.question, critique.reply) == (f"Which term? 6-2+1 {SHORT}", "+1 is left out.")
    assert (revision.question, revision.reply) == (f"{SHORT} +1 is left out. Use all. 6-2+1", RIGHT)
    assert all(one.is_fault for one in (verdict, critique, revision))


def test_a_right_response_is_left_as_it_is() -> None:
    verdict, critique, revision = lessons([("6-2+1", RIGHT)], [FOLLOWS], Fence("key"), planted=False, seed=17)
    assert (verdict.reply, critique.reply, revision.reply) == ("1", "Nothing is wrong.", RIGHT)
    assert not verdict.is_fault


def test_faults_are_planted_in_about_half_of_the_responses_the_same_each_time() -> None:
    def taught(*, planted: bool) -> list[str]:
        rows = lessons([("6-2+1", RIGHT)] * 400, [FOLLOWS], Fence("key"), planted=planted, seed=17)
        return [one.reply for one in rows if one.kind == "principle"]

    assert taught(planted=True) == taught(planted=True)
    assert 150 < taught(planted=True).count("0") < 250
    assert taught(planted=False).count("0") == 0
