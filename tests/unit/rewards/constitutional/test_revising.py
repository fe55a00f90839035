"""Critique and revision in rounds, by a writer whose words are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from rlpipe.rewards.constitutional.principles import Principle, turn
from rlpipe.rewards.constitutional.revising import Draft, Round, revised
from rlpipe.rewards.constitutional.wording import bare
from rlpipe.rewards.judges.templates import OpenTemplate
from rlpipe.rewards.judges.writer import Written

PRINCIPLES = [Principle(name, f"{name}?", f"{name}!", f"{name}??") for name in ("a", "b")]
DRAFTS = [Draft("t:1", "1+1", "x"), Draft("t:2", "1+2", "y")]


class Marks:
    """A program that writes: a critique names its response, a revision adds a mark; it has no words for `mute`."""

    def __init__(self, mute: str = "") -> None:
        self.mute = mute

    def write(self, asked: Sequence[tuple[OpenTemplate, Sequence[str]]]) -> list[Written]:
        return [self._one(*texts) for _, texts in asked]

    def _one(self, prompt: str, response: str, critique: str = "") -> Written:
        if self.mute in (response, critique) and self.mute:
            return Written(None, "malformed: the reply is empty")
        return Written(f"{response}'" if critique else f"of {response}")


def test_each_round_criticises_what_the_round_before_made() -> None:
    one, other = revised(DRAFTS, Marks(), PRINCIPLES, bare, rounds=2, seed=17)
    first, second = (turn(PRINCIPLES, 17, "1+1", number).name for number in range(2))
    assert one.rounds == (Round(first, "of x", "x'"), Round(second, "of x'", "x''"))
    assert (one.texts, other.texts) == (["x", "x'", "x''"], ["y", "y'", "y''"])
    assert (one.missing, other.missing) == ("", "")


def test_what_is_not_written_ends_a_chain_and_says_why() -> None:
    [one] = revised(DRAFTS[:1], Marks(mute="x'"), PRINCIPLES, bare, rounds=3, seed=17)
    assert len(one.rounds) == 2
    assert (one.rounds[1].critique, one.rounds[1].revision) == ("", "")
    assert one.missing == "critique malformed: the reply is empty"
    assert one.texts == ["x", "x'"]
    [other] = revised(DRAFTS[:1], Marks(mute="of x"), PRINCIPLES, bare, rounds=3, seed=17)
    assert (other.rounds[0].critique, other.missing) == ("of x", "revision malformed: the reply is empty")


def test_a_chain_does_not_depend_on_the_others() -> None:
    together = revised(DRAFTS, Marks(), PRINCIPLES, bare, rounds=2, seed=17)
    assert together == revised(DRAFTS[::-1], Marks(), PRINCIPLES, bare, rounds=2, seed=17)[::-1]


def test_without_rounds_a_draft_is_its_own_last_text() -> None:
    [one] = revised(DRAFTS[:1], Marks(), PRINCIPLES, bare, rounds=0, seed=17)
    assert (one.texts, one.missing) == (["x"], "")
