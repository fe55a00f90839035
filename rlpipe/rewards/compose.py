"""The weighted sum of components, each of them kept beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlpipe.errors import ConfigError, nearest
from rlpipe.rewards.base import Component, Missing, Reward
from rlpipe.types import Scored, Task


def compose(weights: Mapping[str, float], components: Mapping[str, Component]) -> Reward:
    """A reward whose total is the sum of weight * score over the components named in `weights`.

    Where a component has no score, the total has none either, and says whose is missing and why; the other
    components' scores are kept.

    Raises: ConfigError for a name that is no component.
    """
    for name in weights:
        if name not in components:
            raise ConfigError(f"reward.{name}: no such component.{nearest(name, components)}")

    def score(tasks: Sequence[Task], completions: Sequence[str]) -> list[Scored]:
        assert len(tasks) == len(completions), "one completion a task"
        columns = {name: components[name](tasks, completions) for name in weights}
        for name, column in columns.items():
            assert len(column) == len(tasks), f"{name}: one score a completion"
        return [_total(weights, {name: column[at] for name, column in columns.items()}) for at in range(len(tasks))]

    return score


def _total(weights: Mapping[str, float], scores: Mapping[str, float | Missing]) -> Scored:
    present = {name: score for name, score in scores.items() if not isinstance(score, Missing)}
    missing = [f"{name}: {score.reason}" for name, score in scores.items() if isinstance(score, Missing)]
    total = None if missing else sum(weights[name] * score for name, score in present.items())
    return Scored(total=total, components=present, missing="; ".join(missing))
