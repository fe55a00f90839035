"""The rewards a stage may use: the room's own components, and the learned reward model, which needs a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlpipe.config import Params
from rlpipe.dataio.chat import prompt_ids, response_ids
from rlpipe.models.load import load_scorer
from rlpipe.rewards.base import Component, Missing, Reward
from rlpipe.rewards.compose import compose
from rlpipe.rewards.registry import VERIFIERS, components
from rlpipe.stages.bench import Bench
from rlpipe.training.scoring import score_examples
from rlpipe.types import Task

PROCESS = "process_reward_model"


def reward(work: Bench, weights: Mapping[str, float]) -> Reward:
    """The weighted score of whole responses. Raises: ConfigError for an unknown component.

    A process reward model has no part in it: see `stages.process_rewarding`.
    """
    params = work.stage.params
    weights = {name: weight for name, weight in weights.items() if name != PROCESS}
    known = dict(components(params.judge.kind))
    if "reward_model" in weights:
        known["reward_model"] = learned(work)
    return compose(weights, known)


def gold(params: Params) -> Reward:
    """The verifier that evaluates, by itself. Raises: ConfigError if `evaluate.reward` is no verifier."""
    return compose({params.evaluate.reward: 1.0}, VERIFIERS)


def learned(work: Bench) -> Component:
    """models/reward_model as a component: scores of mean 0 and spread 1 on the pairs it was trained on."""
    params = work.stage.params
    model = load_scorer(work.stage.path("models/reward_model"), work.device)

    def component(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
        examples = [
            (prompt_ids(work.tokenizer, task.prompt), response_ids(work.tokenizer, text))
            for task, text in zip(tasks, completions, strict=True)
        ]
        return list(score_examples(model, examples, work.batching, params.rollout.batch_size))

    return component


def format_rate(tasks: Sequence[Task], completions: Sequence[str]) -> float:
    """Share of completions in the visible format."""
    scores = [score.total for score in compose({"format": 1.0}, VERIFIERS)(tasks, completions)]
    return sum(score or 0.0 for score in scores) / len(scores)
