"""A labelling brings its own evidence."""

from __future__ import annotations

from rlpipe.rewards.judges import JUDGES
from rlpipe.rewards.judges.base import Pair
from rlpipe.rewards.judges.canaries import CANARIES
from rlpipe.rewards.judges.labelling import label

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
