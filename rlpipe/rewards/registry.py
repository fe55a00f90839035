"""Every reward component by the name it has in `params.yaml`. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlpipe.errors import ConfigError, nearest
from rlpipe.rewards.base import Component, Missing
from rlpipe.rewards.format import tag_format
from rlpipe.rewards.judges import JUDGES, Judge
from rlpipe.rewards.math_answer import math_answer
from rlpipe.rewards.overlap import token_f1
from rlpipe.types import Task

VERIFIERS: Mapping[str, Component] = {
    "math_answer": math_answer,
    "format": tag_format,
    "token_f1": token_f1,
}


def components(judge: str) -> dict[str, Component]:
    """All components that need no trained model: the verifiers, and `judge`, which is `JUDGES[judge]`.

    Raises: ConfigError for an unknown judge.
    """
    if judge not in JUDGES:
        raise ConfigError(f"judge.kind={judge}: no such judge.{nearest(judge, JUDGES)}")
    return {**VERIFIERS, "judge": judged(JUDGES[judge])}


def judged(judge: Judge) -> Component:
    """A judge's verdicts as scores. The judge sees prompt and completion, never the gold answer."""

    def component(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
        verdicts = [judge.score(task.prompt, text) for task, text in zip(tasks, completions, strict=True)]
        return [Missing(verdict.missing) if verdict.score is None else verdict.score for verdict in verdicts]

    return component
