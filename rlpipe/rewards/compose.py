"""The weighted sum of components, each of them kept beside it: gate, normalise, clip, weigh, add."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from rlpipe.config.schema import RewardPart, gate_order
from rlpipe.errors import ConfigError, RewardError, nearest
from rlpipe.rewards.base import Component, Missing, Reward
from rlpipe.types import Scored, Task

Column = list[float | Missing]

_REASONS_SHOWN = 5


def compose(parts: Mapping[str, float | RewardPart], components: Mapping[str, Component]) -> Reward:
    """A reward whose total is the sum of weight * score over the components named in `parts`.

    A component behind a closed gate is not asked, and its score is 0. What is kept beside the total are scores
    after the gate and before norm and clip. Where a component has no score, the total has none either, and says
    whose is missing and why; the other components' scores are kept.

    Raises: ConfigError for a name that is no component.
    """
    for name in parts:
        if name not in components:
            raise ConfigError(f"reward.{name}: no such component.{nearest(name, components)}")
    whole = {name: part if isinstance(part, RewardPart) else RewardPart(weight=part) for name, part in parts.items()}
    order = gate_order({name: part.gate for name, part in whole.items()})

    def score(tasks: Sequence[Task], completions: Sequence[str]) -> list[Scored]:
        assert len(tasks) == len(completions), "one completion a task"
        raw: dict[str, Column] = {}
        for name in order:
            raw[name] = _gated(whole[name], components[name], tasks, completions, raw)
            assert len(raw[name]) == len(tasks), f"{name}: one score a completion"
        shaped = {name: _shaped(part, raw[name], tasks) for name, part in whole.items()}
        return [
            _total(
                {name: part.weight for name, part in whole.items()},
                {name: raw[name][at] for name in whole},
                {name: shaped[name][at] for name in whole},
            )
            for at in range(len(tasks))
        ]

    return score


def stopping(reward: Reward, max_missing: float) -> Reward:
    """The same reward, which stops the run where too many completions of a batch have no score.

    Raises (when called): RewardError, with the reasons and how often each stands, above the share `max_missing`.
    """

    def score(tasks: Sequence[Task], completions: Sequence[str]) -> list[Scored]:
        scored = reward(tasks, completions)
        reasons = Counter(s.missing for s in scored if s.total is None)
        if reasons.total() > max_missing * len(scored):
            raise RewardError(
                f"rewards.max_missing={max_missing:g}: {reasons.total()} of {len(scored)} completions of a batch have "
                f"no score: {told(reasons)}. A missing score is never counted as 0, and what is learned from the rest "
                "is learned from a selection. Mend the cause, or raise the limit."
            )
        return scored

    return score


def told(reasons: Counter[str]) -> str:
    """Reasons with their counts, the most frequent first."""
    shown = [f"{count} × {reason}" for reason, count in reasons.most_common(_REASONS_SHOWN)]
    rest = reasons.total() - sum(count for _, count in reasons.most_common(_REASONS_SHOWN))
    return "; ".join([*shown, f"{rest} × other reasons"] if rest else shown)


def _gated(
    part: RewardPart,
    component: Component,
    tasks: Sequence[Task],
    completions: Sequence[str],
    raw: Mapping[str, Column],
) -> Column:
    """The component's scores: 0 where its gate is closed, missing where its gate's own score is."""
    if part.gate is None:
        return component(tasks, completions)
    gate = raw[part.gate]
    passed = [at for at, held in enumerate(gate) if not isinstance(held, Missing) and held >= part.gate_min]
    asked = component([tasks[at] for at in passed], [completions[at] for at in passed]) if passed else []
    column: Column = [Missing(f"its gate {part.gate} is missing") if isinstance(g, Missing) else 0.0 for g in gate]
    for at, score in zip(passed, asked, strict=True):
        column[at] = score
    return column


def _shaped(part: RewardPart, column: Column, tasks: Sequence[Task]) -> Column:
    """Normalised, then clipped, each if asked."""
    if part.norm == "batch":
        column = _standardised(column, [""] * len(column))
    if part.norm == "group":
        # Siblings are samples of one task. Normalising each component among them: arXiv:2601.05242.
        column = _standardised(column, [task.id for task in tasks])
    if part.clip is not None:
        low, high = part.clip
        column = [s if isinstance(s, Missing) else min(max(s, low), high) for s in column]
    return column


def _standardised(column: Column, groups: Sequence[str]) -> Column:
    """(score - mean) / spread within each group; 0 where all are alike. Missing scores take no part."""
    known: dict[str, list[float]] = {}
    for group, score in zip(groups, column, strict=True):
        if not isinstance(score, Missing):
            known.setdefault(group, []).append(score)
    moments = {group: (statistics.fmean(scores), statistics.pstdev(scores)) for group, scores in known.items()}
    return [
        score if isinstance(score, Missing) else _distance(score, *moments[group])
        for group, score in zip(groups, column, strict=True)
    ]


def _distance(score: float, mean: float, spread: float) -> float:
    return (score - mean) / spread if spread > 0 else 0.0


def _total(
    weights: Mapping[str, float], raw: Mapping[str, float | Missing], shaped: Mapping[str, float | Missing]
) -> Scored:
    present = {name: score for name, score in raw.items() if not isinstance(score, Missing)}
    missing = [f"{name}: {score.reason}" for name, score in raw.items() if isinstance(score, Missing)]
    parts = {name: weights[name] * score for name, score in shaped.items() if not isinstance(score, Missing)}
    return Scored(
        total=None if missing else sum(parts.values()), components=present, missing="; ".join(missing), parts=parts
    )
