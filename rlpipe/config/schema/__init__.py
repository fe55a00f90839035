"""Every section of `params.yaml` as a type. No field has a default: the file is the only home of a number."""

from __future__ import annotations

from rlpipe.config.schema.data import Adapter, Arithmetic, Data, Model, Scratch
from rlpipe.config.schema.fields import Count, CountOrZero, Finite, NonNegative, OpenShare, Positive, Section, Share
from rlpipe.config.schema.judging import Judge, JudgeCalls, JudgeRequest
from rlpipe.config.schema.policies import DistillationBudget, Numbers, OfflineBudget, Policy, Recipe, RLBudget
from rlpipe.config.schema.rewarding import Composition, RewardPart, Rewards, gate_order
from rlpipe.config.schema.rollout import VLLM, Correction, Rollout
from rlpipe.config.schema.run import Evaluate, Report, Runtime, Tracking
from rlpipe.config.schema.training import (
    Constitution,
    FineTuning,
    JudgeModel,
    Optim,
    Pairs,
    ProcessRewardModel,
    RewardModel,
    Supervised,
)
from rlpipe.config.schema.watch import Sentinel, Sentinels, Watch

__all__ = [
    "VLLM",
    "Adapter",
    "Arithmetic",
    "Composition",
    "Constitution",
    "Correction",
    "Count",
    "CountOrZero",
    "Data",
    "DistillationBudget",
    "Evaluate",
    "FineTuning",
    "Finite",
    "Judge",
    "JudgeCalls",
    "JudgeModel",
    "JudgeRequest",
    "Model",
    "NonNegative",
    "Numbers",
    "OfflineBudget",
    "OpenShare",
    "Optim",
    "Pairs",
    "Params",
    "Policy",
    "Positive",
    "ProcessRewardModel",
    "RLBudget",
    "Recipe",
    "Report",
    "RewardModel",
    "RewardPart",
    "Rewards",
    "Rollout",
    "Runtime",
    "Scratch",
    "Section",
    "Sentinel",
    "Sentinels",
    "Share",
    "Supervised",
    "Tracking",
    "Watch",
    "gate_order",
]


class Params(Section):
    seed: CountOrZero
    runtime: Runtime
    tracking: Tracking
    data: Data
    model: Model
    rollout: Rollout
    rewards: Rewards
    judge: Judge
    judge_calls: JudgeCalls
    sft: FineTuning
    judge_model: JudgeModel
    constitution: Constitution
    pairs: dict[str, Pairs]
    reward_model: dict[str, RewardModel]
    process_reward_model: ProcessRewardModel
    policy: dict[str, Policy]
    watch: Watch
    evaluate: Evaluate
    report: Report
    recipe: Recipe
