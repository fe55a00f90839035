"""The process reward model as a part of a policy's reward."""

from __future__ import annotations

from collections.abc import Mapping

from rlpipe.config.schema import RewardPart
from rlpipe.models.load import load_scorer
from rlpipe.rewards.steps import step_ends
from rlpipe.stages.bench import Bench
from rlpipe.stages.rewarding import PROCESS
from rlpipe.training.process_reward import StepRewards


def process_reward(work: Bench, parts: Mapping[str, RewardPart]) -> StepRewards | None:
    """models/process_reward_model as a reward at the ends of steps; None where `parts` does not name it."""
    if PROCESS not in parts:
        return None
    model = load_scorer(work.stage.path(f"models/{PROCESS}"), work.device)
    return StepRewards(model, work.tokenizer, step_ends, work.batching, weight=parts[PROCESS].weight)
