"""A labelling brings its own evidence."""

from __future__ import annotations

from collections.abc import Sequence

from rlpipe.rewards.judges import JUDGES
from rlpipe.rewards.judges.base import Pair, PairVerdict, Verdict
from rlpipe.rewards.judges.canaries import CANARIES
from rlpipe.rewards.judges.labelling import examine, label

RIGHT = "<think>7+5=12 12-2=10</think><answer>10</answer>"
SLIP = "<think>7+5=13 13-2=11</think><answer>11</answer>"
SHORT = "<answer>10</answer>"
PAIRS = [Pair("7+5-2", RIGHT, SHORT), Pair("7+5-2", SHORT, SLIP), Pair("7+5-2", RIGHT, RIGHT)]


def test_with_labels_the_accuracy_and_the_baseline_stand_beside_the_verdicts() -> None:
    found = label(JUDGES["rubric"], PAIRS, canary_prompts=2, labels=["first", "first", "first"])
    assert [verdict.winner for verdict in found.verdicts] == ["first", "second", "tie"]
    assert found.consistency is not None
    assert (found.consistency.pairs, found.consistency.agreement) == (3, 1.0)
    # Right, wrong and a tie: (1 + 0 + 0.5) / 3. The longer one is right, wrong and of equal length: the same.
    assert found.accuracy is not None
    assert found.longer_wins is not None
    assert found.accuracy.accuracy == found.longer_wins.accuracy == 0.5
    # Against the labelled ones of the first two pairs, RIGHT and SHORT. SHORT is outside of the format and scores 0
    # like every canary: a tie each.
    assert set(found.canaries.results) == set(CANARIES)
    assert all((one.judged, one.won, one.tied) == (2, 0, 1) for one in found.canaries.results.values())


def test_without_labels_the_canaries_meet_what_the_judge_prefers() -> None:
    found = label(JUDGES["rubric"], PAIRS, canary_prompts=3, labels=None)
    assert (found.accuracy, found.longer_wins) == (None, None)
    # RIGHT, SLIP (0.1 for the format and more) and, where it prefers none, the first: none is as bad as a canary.
    assert all((one.judged, one.won, one.tied) == (3, 0, 0) for one in found.canaries.results.values())


class TwoMinds:
    """Scores by length, and prefers whatever it is shown first."""

    def score(self, prompt: str, response: str) -> Verdict:
        return Verdict(min(1.0, len(response) / 1000))

    def scores(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [self.score(*item) for item in items]

    def choices(self, pairs: Sequence[Pair]) -> list[PairVerdict]:
        return [PairVerdict("first", "second") for _ in pairs]


def test_a_judge_behind_a_reward_is_asked_to_compare_and_its_canaries_are_scored() -> None:
    found = examine(TwoMinds(), PAIRS[:2], ["first", "second"], canary_prompts=1, labels=["first", None])
    assert found.own.consistency is not None
    # Both verdicts on both pairs are for the response shown first: the scores alone would have hidden it.
    assert (found.own.consistency.agreement, found.own.consistency.first_shown) == (0.0, 1.0)
    assert found.label_agreement is not None
    assert (found.label_agreement.pairs, found.label_agreement.accuracy) == (2, 0.5)  # two ties
    assert found.label_accuracy is not None
    assert (found.label_accuracy.pairs, found.label_accuracy.accuracy) == (1, 1.0)  # the reward's label, not the tie
    assert found.own.accuracy is not None
    assert found.own.accuracy.accuracy == 0.5
    # Against RIGHT, by scores: what is longer wins, though no choice would say so.
    assert set(found.own.canaries.won) == {name for name, text in CANARIES.items() if len(text) > len(RIGHT)}


def test_without_truth_the_canaries_meet_what_the_reward_prefers() -> None:
    found = examine(JUDGES["rubric"], PAIRS[:2], ["second", "second"], canary_prompts=2, labels=[None, None])
    assert (found.label_accuracy, found.own.accuracy) == (None, None)
    # The rubric prefers RIGHT to SHORT; the reward said otherwise, once of twice.
    assert found.label_agreement is not None
    assert found.label_agreement.accuracy == 0.5
    # SHORT, out of format, ties with every canary; SLIP beats them.
    assert all((one.judged, one.won, one.tied) == (2, 0, 1) for one in found.own.canaries.results.values())
