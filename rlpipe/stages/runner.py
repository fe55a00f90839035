"""Run one stage of `dvc.yaml` by name: check the parameters, open the tracker, hand over."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from rlpipe.algos.plan import Plan, RLPlan, plans
from rlpipe.config import Params, load
from rlpipe.environment import importing
from rlpipe.errors import ConfigError, nearest
from rlpipe.rewards import refuse, refuse_as_gold
from rlpipe.rewards.constitutional.principles import read_principles, refuse_untaught
from rlpipe.stages.base import Stage
from rlpipe.tracking import stage_run

STAGES = (
    "prepare",
    "sft",
    "judge",
    "constitution",
    "pairs",
    "reward_model",
    "process_reward_model",
    "policy",
    "evaluate",
    "report",
)


def checked(root: Path) -> Params:
    """The workspace's parameters, every policy section and every reward in order. Raises: ConfigError."""
    params = load(root)
    for name, made in plans(params).items():
        if isinstance(made, RLPlan):
            refuse(made.budget.reward, root, f"policy.{name}.reward")
            _refuse_nobody(params, made.budget.reward, f"policy.{name}.reward")
        _refuse_too_short(params, name, made)
    for name, pairs in params.pairs.items():
        if pairs.reward is not None:
            refuse(pairs.reward, root, f"pairs.{name}.reward", made=("judge",))
        if pairs.source == "policy":
            _refuse_nobody(params, {"judge": None} if pairs.reward is None else pairs.reward, f"pairs.{name}.reward")
    _refuse_heldout(params, root)
    refuse_as_gold(params.evaluate.reward, "evaluate.reward")
    refuse_as_gold(params.judge_model.labels, "judge_model.labels")
    _refuse_principles(params, root)
    return params


def _refuse_principles(params: Params, root: Path) -> None:
    """Where principles are used they can be read, and the embedded judge can be taught them."""
    file = params.constitution.principles
    taught = params.judge.kind == "embedded" and params.judge_model.principles_from == file
    compared = any(pairs.principles_from == file for pairs in params.pairs.values())
    if taught or compared or params.constitution.source != "none":
        principles = read_principles(root / file)
        if taught:
            refuse_untaught(principles, params.data.source, f"judge_model.principles_from={file}")


def _refuse_nobody(params: Params, parts: Mapping[str, object], at: str) -> None:
    if params.judge.kind == "none" and "judge" in parts:
        raise ConfigError(f"{at}: it asks a judge, and judge.kind is none. Set judge.kind, or take another reward.")


def _refuse_heldout(params: Params, root: Path) -> None:
    """What policies are measured by must be there before any of them, and nothing that DVC does not see."""
    refuse(params.watch.heldout, root, "watch.heldout", made=("judge",))
    _refuse_nobody(params, params.watch.heldout, "watch.heldout")
    if params.judge.kind == "embedded" and "judge" in params.watch.heldout:
        raise ConfigError(
            "watch.heldout.judge: judge.kind is embedded, and models/judge is no input of a policy that does not learn "
            "from it. Take a judge of another kind, or a verifier."
        )


def _refuse_too_short(params: Params, name: str, plan: Plan) -> None:
    """The best weights are those of a whole window."""
    steps = plan.budget.steps
    every = 1 if isinstance(plan, RLPlan) else plan.budget.measure_every
    measured = len({*range(0, steps, every), steps - 1})
    if params.watch.keep == "best" and measured < params.watch.window:
        raise ConfigError(
            f"watch.keep=best: policy.{name} measures only {measured} of its steps, fewer than watch.window="
            f"{params.watch.window}, so no window of it is ever full. Set keep: last, or a smaller window."
        )


def run_stage(root: Path, name: str, item: str) -> None:
    """Run stage `name`, or `name@item`. Raises: RlpipeError."""
    if name not in STAGES:
        raise ConfigError(f"stage {name!r}: unknown.{nearest(name, STAGES)}")
    params = checked(root)
    with importing():
        module = import_module(f"rlpipe.stages.{name}")
    address = f"{name}@{item}" if item else name
    with stage_run(root, address, params) as tracker:
        module.run(Stage(name, item, root, params, tracker))
