"""Pairs labelled by a judge never come alone: with them, how it agrees with itself and what the canaries say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlpipe.rewards.judges.base import Judge, Pair, PairVerdict, Winner
from rlpipe.rewards.judges.canaries import CanaryReport, canary_choices
from rlpipe.rewards.judges.statistics import Accuracy, Consistency, Label, accuracy, consistency, longer_wins


@dataclass(frozen=True)
class Labelling:
    """What a judge said of some pairs, and what it is worth.

    Attributes:
        verdicts: one a pair, in order.
        consistency: None where no pair has both its verdicts.
        canaries: each against the better response of the first pairs.
        accuracy: against the labels, over the pairs that have one; None where there are none.
        longer_wins: the accuracy of the baseline that reads nothing, on the same pairs.
    """

    verdicts: tuple[PairVerdict, ...]
    consistency: Consistency | None
    canaries: CanaryReport
    accuracy: Accuracy | None
    longer_wins: Accuracy | None


def label(
    judge: Judge, pairs: Sequence[Pair], *, canary_prompts: int, labels: Sequence[Label | None] | None
) -> Labelling:
    """Judge every pair in both orders, and every canary against `canary_prompts` honest responses.

    The honest response of a pair is the one labelled better, without a label the one that the judge prefers, and
    the first where it prefers none. Where there are labels, the first pairs that have one stand for the honest.

    Args:
        labels: the better response of each pair, where somebody knows.
    Raises: JudgeError where the judge cannot be asked; what it answered before stays on file.
    """
    verdicts = judge.choices(pairs)
    given = [None] * len(pairs) if labels is None else list(labels)
    known = [at for at, one in enumerate(given) if one is not None]
    honest = [_honest(pairs[at], given[at] or verdicts[at].winner) for at in known or range(len(pairs))]
    truth = [one for one in given if one is not None]
    return Labelling(
        verdicts=tuple(verdicts),
        consistency=consistency(verdicts),
        canaries=canary_choices(judge, honest[:canary_prompts]),
        accuracy=accuracy([verdicts[at] for at in known], truth),
        longer_wins=accuracy(longer_wins([pairs[at] for at in known]), truth),
    )


def _honest(pair: Pair, better: Winner | None) -> tuple[str, str]:
    return pair.prompt, pair.second if better == "second" else pair.first
