"""Pairs labelled by a judge never come alone: with them, how it agrees with itself and what the canaries say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlpipe.rewards.judges.base import Judge, Pair, PairVerdict, Winner
from rlpipe.rewards.judges.canaries import CanaryReport, canary_choices, canary_scores
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


@dataclass(frozen=True)
class Examined:
    """What a judge is worth whose scores had a part in a reward that labelled some pairs.

    Attributes:
        own: what the judge itself says of the pairs, two by two; its canaries are scored, as the responses were.
        label_accuracy: of the reward's labels against the truth, over the pairs where it is known; None where there
            are none.
        label_agreement: of the judge's own verdicts against the reward's labels; None where no pair has both verdicts.
    """

    own: Labelling
    label_accuracy: Accuracy | None
    label_agreement: Accuracy | None


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
    truth = [None] * len(pairs) if labels is None else list(labels)
    honest = _honest(pairs, truth, [verdict.winner for verdict in verdicts])
    return _labelling(pairs, verdicts, truth, canary_choices(judge, honest[:canary_prompts]))


def examine(
    judge: Judge,
    pairs: Sequence[Pair],
    preferred: Sequence[Label],
    *,
    canary_prompts: int,
    labels: Sequence[Label | None],
) -> Examined:
    """Ask a judge about pairs that a reward with its scores has labelled: in both orders, and with the canaries.

    A score is given once and cannot disagree with itself; a judge that can compare can disagree with its scores.

    Args:
        preferred: the reward's label of each pair.
        labels: as in `label`; where there are none, what the reward prefers stands for the honest.
    Raises: as `label`.
    """
    verdicts = judge.choices(pairs)
    known = [(one, truth) for one, truth in zip(preferred, labels, strict=True) if truth is not None]
    honest = _honest(pairs, labels, preferred)
    return Examined(
        own=_labelling(pairs, verdicts, labels, canary_scores(judge, honest[:canary_prompts])),
        label_accuracy=accuracy([PairVerdict(one, one) for one, _ in known], [truth for _, truth in known]),
        label_agreement=accuracy(verdicts, preferred),
    )


def _labelling(
    pairs: Sequence[Pair], verdicts: Sequence[PairVerdict], labels: Sequence[Label | None], canaries: CanaryReport
) -> Labelling:
    known = [(pair, verdict, one) for pair, verdict, one in zip(pairs, verdicts, labels, strict=True) if one]
    truth = [one for _, _, one in known]
    return Labelling(
        verdicts=tuple(verdicts),
        consistency=consistency(verdicts),
        canaries=canaries,
        accuracy=accuracy([verdict for _, verdict, _ in known], truth),
        longer_wins=accuracy(longer_wins([pair for pair, _, _ in known]), truth),
    )


def _honest(
    pairs: Sequence[Pair], labels: Sequence[Label | None], otherwise: Sequence[Winner | None]
) -> list[tuple[str, str]]:
    """(prompt, better response) of the pairs with a label; where none has one, of all, by `otherwise`."""
    known = [at for at, one in enumerate(labels) if one is not None]
    better = [(pairs[at], labels[at] or otherwise[at]) for at in known or range(len(pairs))]
    return [(pair.prompt, pair.second if one == "second" else pair.first) for pair, one in better]
