"""Policy sections as params.yaml would write them: an algorithm's recommended numbers, and a small budget."""

from __future__ import annotations

from typing import Any

from rlpipe.algos import ALGOS
from rlpipe.algos.base import DistillationAlgo, PolicyAlgo
from rlpipe.algos.plan import Plan, plan
from rlpipe.config.schema import Policy, Recipe, Rollout

OPTIM = {"lr": 1e-4, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1.0}
ONLINE = {
    "starts_from": "models/sft",
    "learns_from": "data/prepared", "reward": {"math_answer": 1.0}, "steps": 10, "prompts_per_step": 4,
    "group_size": 4, "epochs": 1, "minibatches": 1, "optim": OPTIM,
}  # fmt: skip
OFFLINE = {
    "starts_from": "models/sft",
    "learns_from": "data/pairs/gold", "steps": 10, "batch_size": 8, "measure_every": 5,
    "measure_prompts": 8, "optim": OPTIM,
}  # fmt: skip
DISTILLATION = {
    "starts_from": "models/sft",
    "learns_from": "models/grpo", "steps": 10, "prompts_per_step": 4, "group_size": 2,
    "measure_every": 5, "measure_prompts": 8, "optim": OPTIM,
}  # fmt: skip
RECIPE = Recipe(online=ONLINE, offline=OFFLINE, distillation=DISTILLATION, numbers={"dpo": {"beta": 1.0}})
ROLLOUT = {
    "engine": "transformers", "temperature": 1.0, "top_k": None, "top_p": None, "min_p": None,
    "max_new_tokens": 8, "batch_size": 8, "token_budget": None,
}  # fmt: skip


def written(algorithm: str, **changes: Any) -> Policy:
    """The section of `algorithm` with some keys changed; None takes a key out."""
    algo = ALGOS.get(algorithm)
    budget = ONLINE if isinstance(algo, PolicyAlgo) else DISTILLATION if isinstance(algo, DistillationAlgo) else OFFLINE
    section = {"algorithm": algorithm, **budget, **(algo.recommended if algo else {}), **changes}
    return Policy.model_validate({key: value for key, value in section.items() if value is not None})


def planned(algorithm: str, rollout: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """The plan of `policy.x` so written."""
    return plan("x", written(algorithm, **changes), Rollout.model_validate(ROLLOUT | (rollout or {})))
