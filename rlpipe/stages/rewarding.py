"""The rewards a stage may use: the room's own components, and the learned reward model, which needs a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from rlpipe.config import Params
from rlpipe.config.schema import RewardPart
from rlpipe.dataio.chat import prompt_ids, response_ids
from rlpipe.models.load import load_scorer
from rlpipe.rewards.base import Component, ComponentFunction, Missing, Reward
from rlpipe.rewards.compose import compose, stopping
from rlpipe.rewards.judges import Judge
from rlpipe.rewards.registry import VERIFIERS, bind, judged
from rlpipe.stages.bench import Bench
from rlpipe.training.batching import Batching
from rlpipe.training.scoring import score_examples
from rlpipe.types import Task

PROCESS, LEARNED, JUDGE = "process_reward_model", "reward_model", "judge"


def reward(work: Bench, parts: Mapping[str, RewardPart], *, judge: Judge | None = None, learned_at: str = "") -> Reward:
    """As `composed`, but it stops the run where too many responses have no score."""
    whole = composed(work, parts, judge=judge, learned_at=learned_at)
    return stopping(whole, work.stage.params.rewards.max_missing)


def composed(
    work: Bench, parts: Mapping[str, RewardPart], *, judge: Judge | None = None, learned_at: str = ""
) -> Reward:
    """The weighted score of whole responses, however many have none.

    A process reward model has no part in it: see `stages.process_rewarding`.

    Args:
        judge: who answers for the component `judge`.
        learned_at: the folder of the component `reward_model`.
    Raises: ConfigError for an unknown component or option, or one of these two that is not there.
    """
    parts = {name: _at_hand(work, name, part) for name, part in parts.items() if name != PROCESS}
    known: dict[str, ComponentFunction] = dict(VERIFIERS)
    if judge is not None:
        known[JUDGE] = judged(judge)
    if LEARNED in parts and learned_at:
        known[LEARNED] = learned(work, learned_at)
    bound = {name: bind(name, part, known, work.stage.root, f"reward.{name}") for name, part in parts.items()}
    return compose(parts, bound)


def gold(params: Params) -> Reward:
    """The verifier that evaluates, by itself. Raises: ConfigError if `evaluate.reward` is no verifier."""
    return compose({params.evaluate.reward: 1.0}, VERIFIERS)


def _at_hand(work: Bench, name: str, part: RewardPart) -> RewardPart:
    """The part with what only a stage knows: lengths are counted by the policy's own tokenizer."""
    if name != "length" or part.options.get("tokenizer") is not None:
        return part
    return part.model_copy(update={"tokenizer": str(work.stage.path("models/sft"))})


def learned(work: Bench, at: str) -> Component:
    """The reward model in the folder `at` as a component: mean 0 and spread 1 on the pairs it was trained on."""
    model = load_scorer(work.stage.path(at), work.device)
    return scored_by(model, work.tokenizer, work.batching)


def scored_by(model: nn.Module, tokenizer: PreTrainedTokenizerBase, batching: Batching) -> Component:
    """A scorer as a component."""

    def component(tasks: Sequence[Task], completions: Sequence[str]) -> list[float | Missing]:
        examples = [
            (prompt_ids(tokenizer, task.prompt), response_ids(tokenizer, text))
            for task, text in zip(tasks, completions, strict=True)
        ]
        return list(score_examples(model, examples, batching))

    return component


def format_rate(tasks: Sequence[Task], completions: Sequence[str]) -> float:
    """Share of completions in the visible format."""
    scores = [score.total for score in compose({"format": 1.0}, VERIFIERS)(tasks, completions)]
    return sum(score or 0.0 for score in scores) / len(scores)
