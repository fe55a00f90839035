"""Every reward component by the name it has in `params.yaml`. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlpipe.config.schema import RewardPart
from rlpipe.errors import ConfigError, nearest
from rlpipe.rewards.base import Component, ComponentFunction, Missing
from rlpipe.rewards.code_tests import code_tests
from rlpipe.rewards.dotted import dotted, refuse_unrecorded
from rlpipe.rewards.format import tag_format
from rlpipe.rewards.http import http_reward
from rlpipe.rewards.judges import Judge
from rlpipe.rewards.length import length
from rlpipe.rewards.longer import longer
from rlpipe.rewards.math_answer import math_answer
from rlpipe.rewards.options import bound, needs_options
from rlpipe.rewards.overlap import token_f1
from rlpipe.rewards.repetition import repetition
from rlpipe.types import Task

VERIFIERS: Mapping[str, ComponentFunction] = {
    "math_answer": math_answer,
    "code_tests": code_tests,
    "format": tag_format,
    "token_f1": token_f1,
    "length": length,
    "longer": longer,
    "repetition": repetition,
    "http": http_reward,
}

# Components that a stage makes from what it has: a judge, models. They have sections of their own, not options.
MADE_BY_STAGES = ("judge", "reward_model", "process_reward_model")


def bind(name: str, part: RewardPart, functions: Mapping[str, ComponentFunction], root: Path, at: str) -> Component:
    """The component that a part of a reward names, its options bound.

    Args:
        functions: components by name.
        root: the run's folder, where a user's own function is looked for first.
        at: the part's key, for messages.
    Raises: ConfigError for an unknown component or option, or a function that is not what params.yaml records.
    """
    if part.function is None:
        if name not in functions:
            raise ConfigError(f"{at}: no such component.{nearest(name, functions)}")
        return bound(functions[name], part.options, at)
    if name in (*VERIFIERS, *MADE_BY_STAGES):
        raise ConfigError(f"{at}.function={part.function}: {name} is a component already. Choose another name.")
    function = dotted(part.function, root, f"{at}.function")
    refuse_unrecorded(part.function, part.sha256, at)
    return bound(function, part.options, at)


def refuse(parts: Mapping[str, RewardPart], root: Path, at: str, made: Sequence[str] = MADE_BY_STAGES) -> None:
    """Refuse what no stage could make of the reward at key `at`; nothing is loaded but a user's own modules.

    Args: made: those of MADE_BY_STAGES that exist when the reward is used.
    Raises: ConfigError on the first mistake.
    """
    for name, part in parts.items():
        key = f"{at}.{name}"
        if part.function is None and name in MADE_BY_STAGES:
            if name not in made:
                raise ConfigError(f"{key}: {name} does not exist yet where this is scored. Take a verifier or a judge.")
            if part.options:
                raise ConfigError(
                    f"{key}.{next(iter(part.options))}: {name} has no options here; its settings are the section "
                    f"`{name}:` of params.yaml. Move it there."
                )
            continue
        component = bind(name, part, {**VERIFIERS, **dict.fromkeys(MADE_BY_STAGES, tag_format)}, root, key)
        if part.function is None:
            component([], [])  # options that do not fit each other are refused by the component itself


def refuse_as_gold(name: str, at: str) -> None:
    """What evaluates is a verifier that needs no options. Raises: ConfigError."""
    if name not in VERIFIERS:
        raise ConfigError(f"{at}={name}: no such verifier.{nearest(name, VERIFIERS)}")
    if needed := needs_options(VERIFIERS[name]):
        raise ConfigError(
            f"{at}={name}: it cannot do without {', '.join(needed)}, and what evaluates has no options. Name another."
        )


def judged(judge: Judge) -> Component:
    """A judge's verdicts as scores. The judge sees prompt and completion, never the gold answer."""

    def component(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
        verdicts = judge.scores([(task.prompt, text) for task, text in zip(tasks, completions, strict=True)])
        return [Missing(verdict.missing) if verdict.score is None else verdict.score for verdict in verdicts]

    return component
