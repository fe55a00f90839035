"""How sampled responses become preference pairs: by a reward, or by a judge that compares two at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rlpipe.rewards.base import Reward
from rlpipe.rewards.judges import Judge, Pair
from rlpipe.rewards.judges.labelling import Labelling, examine, label
from rlpipe.rewards.judges.statistics import Label
from rlpipe.types import Preference, Scored, Task


def best_against_worst(tasks: list[Task], texts: list[str], scored: list[Scored], per_prompt: int) -> list[Preference]:
    """One pair a prompt: its best sample against its worst; prompts whose samples all score alike give none.

    Of samples that score alike, the first drawn is taken. A sample without a score takes no part.
    """
    return [
        Preference(tasks[one.best].id, tasks[one.best].prompt, texts[one.best], texts[one.worst], one.margin)
        for one in _contrasts(scored, per_prompt)
    ]


def worth_behind_reward(
    tasks: list[Task],
    texts: list[str],
    scored: list[Scored],
    per_prompt: int,
    judge: Judge,
    gold: Reward,
    canary_prompts: int,
) -> dict[str, float]:
    """What the judge is worth whose scores are a part of `scored`, on the pairs of `best_against_worst`.

    It is shown each pair as it was drawn: named by the label, nearly all verdicts would be the same, and κ nothing.

    Args: gold: as in `two_by_two`.
    Returns: by metric key.
    """
    contrasts = _contrasts(scored, per_prompt)
    places = [sorted((one.best, one.worst)) for one in contrasts]
    shown = [Pair(tasks[first].prompt, texts[first], texts[second]) for first, second in places]
    preferred: list[Label] = ["first" if one.best < one.worst else "second" for one in contrasts]
    flat = [at for both in places for at in both]
    truth = iter(gold([tasks[at] for at in flat], [texts[at] for at in flat]))
    labels = [_better(next(truth).total, next(truth).total) for _ in places]
    found = examine(judge, shown, preferred, canary_prompts=canary_prompts, labels=labels)
    measured: dict[str, object] = {}
    for name, share in (("label_accuracy", found.label_accuracy), ("label_agreement", found.label_agreement)):
        if share is not None:
            measured |= {name: share.accuracy, f"{name}_interval": share.accuracy_interval}
    return {**_worth(found.own), **_flat(measured)}


@dataclass(frozen=True)
class _Contrast:
    """A prompt's best and worst sample, by their places, and how far apart they score."""

    best: int
    worst: int
    margin: float


def _contrasts(scored: list[Scored], per_prompt: int) -> list[_Contrast]:
    found = []
    for start in range(0, len(scored), per_prompt):
        totals = {i: scored[i].total for i in range(start, start + per_prompt)}
        known = {i: total for i, total in totals.items() if total is not None}
        if not known:
            continue
        best = max(known, key=lambda i: (known[i], -i))
        worst = min(known, key=lambda i: (known[i], i))
        margin = known[best] - known[worst]
        if margin > 0:
            found.append(_Contrast(best, worst, margin))
    return found


def two_by_two(
    tasks: list[Task], texts: list[str], per_prompt: int, judge: Judge, gold: Reward, canary_prompts: int
) -> tuple[list[Preference], dict[str, float]]:
    """Siblings in twos as they were drawn, each sample in one pair at most; what the judge prefers in both orders.

    Two equal samples are no pair; a disagreement of the orders is a tie and gives none.

    Args: gold: the evaluation's verifier, which labels nothing: the judge is measured against it.
    Returns: the pairs, and what the judge's labels are worth, by metric key.
    """
    starts = [
        first
        for prompt in range(0, len(tasks), per_prompt)
        for first in range(prompt, prompt + per_prompt - 1, 2)
        if texts[first] != texts[first + 1]
    ]
    shown = [Pair(tasks[at].prompt, texts[at], texts[at + 1]) for at in starts]
    scored = gold(tasks, texts)
    truth = [_better(scored[at].total, scored[at + 1].total) for at in starts]
    found = label(judge, shown, canary_prompts=canary_prompts, labels=truth)
    pairs = [
        Preference(tasks[at].id, pair.prompt, *_in_order(pair, is_first=verdict.winner == "first"))
        for at, pair, verdict in zip(starts, shown, found.verdicts, strict=True)
        if verdict.winner in ("first", "second")
    ]
    lost = sum(verdict.winner is None for verdict in found.verdicts)
    tied = len(starts) - len(pairs) - lost
    return pairs, {"data/ties_dropped": tied, "data/pairs_missing": lost, **_worth(found)}


def _in_order(pair: Pair, *, is_first: bool) -> tuple[str, str]:
    return (pair.first, pair.second) if is_first else (pair.second, pair.first)


def _better(first: float | None, second: float | None) -> Label | None:
    if first is None or second is None or first == second:
        return None
    return "first" if first > second else "second"


def _worth(found: Labelling) -> dict[str, float]:
    """Agreement with itself, position bias, accuracy beside that of "longer wins", and the canaries."""
    measured: dict[str, object] = {}
    if found.consistency is not None:
        measured |= asdict(found.consistency)
    for name, accuracy in (("", found.accuracy), ("longer_wins_", found.longer_wins)):
        if accuracy is not None:
            measured |= {f"{name}accuracy": accuracy.accuracy, f"{name}accuracy_interval": accuracy.accuracy_interval}
            measured |= {f"{name}labelled_pairs": accuracy.pairs}
    return {**_flat(measured), **_flat(found.canaries.metrics())}


def _flat(measured: Mapping[str, object]) -> dict[str, float]:
    """By metric key; an interval becomes its two ends, and what is None is left out."""
    flat: dict[str, float] = {}
    for name, value in measured.items():
        if isinstance(value, tuple):
            stem = name.removesuffix("_interval")
            flat |= {f"{stem}_ci_low": value[0], f"{stem}_ci_high": value[1]}
        elif value is not None:
            flat[name] = float(value)  # type: ignore[arg-type]
    return {f"judge/{name}": value for name, value in flat.items()}
