"""Run one stage of `dvc.yaml` by name: check the parameters, open the tracker, hand over."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from rlpipe.algos.plan import RLPlan, plans
from rlpipe.config import Params, load
from rlpipe.errors import ConfigError, nearest
from rlpipe.rewards import refuse, refuse_as_gold
from rlpipe.stages.base import Stage
from rlpipe.tracking import stage_run

STAGES = ("prepare", "sft", "pairs", "reward_model", "process_reward_model", "policy", "evaluate", "report")


def checked(root: Path) -> Params:
    """The workspace's parameters, every policy section and every reward in order. Raises: ConfigError."""
    params = load(root)
    for name, made in plans(params).items():
        if isinstance(made, RLPlan):
            refuse(made.budget.reward, root, f"policy.{name}.reward")
    refuse(params.pairs.reward, root, "pairs.reward", made=("judge",))
    refuse(params.watch.heldout, root, "watch.heldout", made=("judge",))
    refuse_as_gold(params.evaluate.reward, "evaluate.reward")
    return params


def run_stage(root: Path, name: str, item: str) -> None:
    """Run stage `name`, or `name@item`. Raises: RlpipeError."""
    if name not in STAGES:
        raise ConfigError(f"stage {name!r}: unknown.{nearest(name, STAGES)}")
    params = checked(root)
    module = import_module(f"rlpipe.stages.{name}")
    address = f"{name}@{item}" if item else name
    with stage_run(root, address, params) as tracker:
        module.run(Stage(name, item, root, params, tracker))
