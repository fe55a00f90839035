"""How far a judge can be trusted: its agreement with itself, its position bias, and its accuracy where labels are.

Each pair is judged twice, with either response shown first; a *verdict* is one of the two. Three figures are
those of LLMBar (arXiv:2310.07641, section 4.1 and its published statistics, which come out of its raw outputs):

    accuracy    share of all verdicts that are right. A pair right in both orders counts 1, in one order 1/2: a
                disagreement is a tie, and a tie is worth as much as a coin.
    agreement   share of pairs with the same verdict in both orders.
    kappa       Cohen's kappa of the two orders, as of two raters who name a response:
                (agreement - chance) / (1 - chance), chance = sum over names of p_forward(name) p_backward(name).

All shares are in [0, 1], over the pairs with a verdict in both orders; the others are counted as missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlpipe.rewards.judges.base import Pair, PairVerdict, Winner
from rlpipe.stats import wilson

Interval = tuple[float, float]  # 95%
Label = Literal["first", "second"]


@dataclass(frozen=True)
class LabelledPair:
    """A pair, and which response is the better one."""

    pair: Pair
    label: Label


@dataclass(frozen=True)
class Consistency:
    """A judge against itself; needs no label, so it goes with whatever a judge has labelled.

    Attributes:
        pairs: with both verdicts; no other figure than `missing` knows of the rest.
        missing: pairs that lack one.
        tied: share of pairs that are a tie in the end.
        agreement: share of pairs with the same verdict in both orders.
        kappa: see above; None where both orders name one and the same response throughout.
        first_shown: share of the verdicts naming a response that name the one shown first; 0.5 is without bias.
            None where all are ties.
        flipped: pairs that got both possible verdicts, so that the order alone decided.
        flipped_to_first: share of those where the response shown first won, both times; 0.5 is without bias. None
            where there is none.
    """

    pairs: int
    missing: int
    tied: float
    agreement: float
    agreement_interval: Interval
    kappa: float | None
    first_shown: float | None
    flipped: int
    flipped_to_first: float | None
    flipped_to_first_interval: Interval | None


@dataclass(frozen=True)
class Accuracy:
    """A judge against labels.

    Attributes:
        pairs: with both verdicts.
        accuracy: share of verdicts that are right, a tie half; its interval is over pairs.
        right: share of pairs right in both orders.
        wrong: share of pairs wrong in both orders; what is neither is a tie.
    """

    pairs: int
    accuracy: float
    accuracy_interval: Interval
    right: float
    right_interval: Interval
    wrong: float
    wrong_interval: Interval


def consistency(verdicts: Sequence[PairVerdict]) -> Consistency | None:
    """How a judge agrees with itself; None where no pair has both its verdicts."""
    judged = _both(verdicts)
    n = len(judged)
    if n == 0:
        return None
    same = sum(forward == backward for forward, backward in judged)
    to_first, to_second = judged.count(("first", "second")), judged.count(("second", "first"))
    flipped = to_first + to_second
    return Consistency(
        pairs=n,
        missing=len(verdicts) - n,
        tied=sum(verdict.winner == "tie" for verdict in verdicts) / n,
        agreement=same / n,
        agreement_interval=wilson(same, n),
        kappa=cohen_kappa([forward for forward, _ in judged], [backward for _, backward in judged]),
        first_shown=_first_shown(judged),
        flipped=flipped,
        flipped_to_first=to_first / flipped if flipped else None,
        flipped_to_first_interval=wilson(to_first, flipped) if flipped else None,
    )


def accuracy(verdicts: Sequence[PairVerdict], labels: Sequence[Label]) -> Accuracy | None:
    """How a judge agrees with labels; None where no pair has both its verdicts."""
    known = [label for verdict, label in zip(verdicts, labels, strict=True) if verdict.winner is not None]
    judged = list(zip(_both(verdicts), known, strict=True))
    n = len(judged)
    if n == 0:
        return None
    points = sum((credit(forward, label) + credit(backward, label)) / 2 for (forward, backward), label in judged)
    right = sum(forward == backward == label for (forward, backward), label in judged)
    wrong = sum(forward == backward and forward not in (label, "tie") for (forward, backward), label in judged)
    return Accuracy(
        pairs=n,
        accuracy=points / n,
        accuracy_interval=_half_point_interval(points, n),
        right=right / n,
        right_interval=wilson(right, n),
        wrong=wrong / n,
        wrong_interval=wilson(wrong, n),
    )


def credit(verdict: Winner, label: Label) -> float:
    """1 for the right response, 0 for the other, 1/2 for a tie."""
    return 0.5 if verdict == "tie" else float(verdict == label)


def binary_accuracy(scores: Sequence[float | None], labels: Sequence[bool]) -> dict[str, float]:
    """A judge's scores in [0, 1] as verdicts, right above 1/2, against labels.

    Returns: heldout_accuracy with its interval `ci_low`, `ci_high`; `accepted_wrong`, the share of wrong responses
        called right; `refused_right`, of right ones called wrong; `right_frac`, of right ones among all; how many
        were judged, and how many have no score. Both kinds of label must be there.
    """
    judged = [(score > 0.5, label) for score, label in zip(scores, labels, strict=True) if score is not None]
    hits = sum(verdict == label for verdict, label in judged)
    right = sum(label for _, label in judged)
    wrong = len(judged) - right
    low, high = wilson(hits, len(judged))
    return {
        "heldout_accuracy": hits / len(judged),
        "ci_low": low,
        "ci_high": high,
        "accepted_wrong": sum(verdict and not label for verdict, label in judged) / wrong,
        "refused_right": sum(label and not verdict for verdict, label in judged) / right,
        "right_frac": right / len(judged),
        "heldout_responses": len(judged),
        "missing": len(scores) - len(judged),
    }


def cohen_kappa(ratings: Sequence[str], others: Sequence[str]) -> float | None:
    """Agreement of two raters beyond chance: 1 complete, 0 that of chance; None where chance alone is complete.

        (p_same - p_chance) / (1 - p_chance),   p_chance = sum over names of p(name) q(name)

    Source: J. Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    n = len(ratings)
    same = sum(one == other for one, other in zip(ratings, others, strict=True)) / n
    own, theirs = Counter(ratings), Counter(others)
    # Whole numbers, so that a complete agreement by chance is seen to be 1 and not nearly 1.
    by_chance = sum(own[name] * theirs[name] for name in own)
    if by_chance == n * n:
        return None
    chance = by_chance / (n * n)
    return (same - chance) / (1 - chance)


def longer_wins(pairs: Sequence[Pair]) -> list[PairVerdict]:
    """The baseline that reads nothing: the response of more characters wins, in either order."""
    return [PairVerdict(winner, winner) for winner in map(_longer, pairs)]


def _longer(pair: Pair) -> Winner:
    first, second = len(pair.first), len(pair.second)
    return "tie" if first == second else "first" if first > second else "second"


def _both(verdicts: Sequence[PairVerdict]) -> list[tuple[Winner, Winner]]:
    """The verdicts of the pairs that have both."""
    return [
        (verdict.forward, verdict.backward)
        for verdict in verdicts
        if verdict.forward is not None and verdict.backward is not None
    ]


def _first_shown(verdicts: Sequence[tuple[Winner, Winner]]) -> float | None:
    shown = [forward == "first" for forward, _ in verdicts if forward != "tie"]
    shown += [backward == "second" for _, backward in verdicts if backward != "tie"]
    return sum(shown) / len(shown) if shown else None


def _half_point_interval(points: float, n: int) -> Interval:
    """Wilson's for points that are no whole number: wide enough for the whole numbers on either side.

    Over pairs, not verdicts: the two verdicts of a pair are far from independent.
    """
    return wilson(math.floor(points), n)[0], wilson(math.ceil(points), n)[1]
