"""Join a policy section of params.yaml with its algorithm, or refuse it before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from rlpipe.algos import ALGOS
from rlpipe.algos.base import DistillationAlgo, PolicyAlgo, PreferenceAlgo, SectionAlgo, StageAlgo
from rlpipe.algos.choices import choices_of, composed
from rlpipe.algos.refusals import foreign, refuse_distillation, refuse_offline, refuse_online, refuse_supervised
from rlpipe.config.load import validated
from rlpipe.config.schema import DistillationBudget, Numbers, OfflineBudget, Params, Policy, RLBudget, Rollout
from rlpipe.errors import ConfigError, nearest

# Numbers that any online algorithm may have; left out, they are off.
OPTIONAL = frozenset({"entropy_coef", "reward_scale", "reward_clip"})


@dataclass(frozen=True)
class RLPlan:
    """An online policy, ready to train."""

    algo: PolicyAlgo
    budget: RLBudget
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class PreferencePlan:
    """A policy that learns from pairs, ready to train."""

    algo: PreferenceAlgo
    budget: OfflineBudget
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class DistillationPlan:
    """A policy that learns from a teacher, ready to train."""

    algo: DistillationAlgo
    budget: DistillationBudget
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class SupervisedPlan:
    """A policy that learns from demonstrations, ready to train."""

    algo: StageAlgo
    budget: OfflineBudget


# Of an algorithm that is a choice of ops; and any plan.
Composed = RLPlan | PreferencePlan | DistillationPlan
Plan = Composed | SupervisedPlan


def plans(params: Params) -> dict[str, Plan]:
    """Every policy section's plan. Raises: ConfigError on the first that cannot work."""
    made = {name: plan(name, section, params.rollout) for name, section in params.policy.items()}
    scorers = {f"reward_model/{name}" for name in params.reward_model}
    models = {"sft", "judge", "process_reward_model", *scorers, *params.policy}
    for name, section in params.policy.items():
        room, _, source = section.learns_from.partition("/")
        if room == "models" and source not in models - {name}:
            raise ConfigError(
                f"policy.{name}.learns_from={section.learns_from}: no stage writes it.{nearest(source, models)}"
            )
    return made


def plan(name: str, section: Policy, rollout: Rollout) -> Plan:
    """One policy section's plan.

    Raises: ConfigError for an unknown algorithm, choice or key, a missing or out-of-range number, or a combination
        that cannot work.
    """
    at = f"policy.{name}"
    listed = ALGOS.get(section.algorithm)
    if isinstance(listed, StageAlgo) and listed.learns_policies:
        return _supervised(at, section, listed)
    algo = _composed(at, section)
    if isinstance(algo, PolicyAlgo):
        budget, numbers = _read(at, section, algo, RLBudget, OPTIONAL)
        rl = RLPlan(algo, budget, numbers)
        refuse_online(at, section, algo, budget, numbers, rollout)
        return rl
    refuse_offline(at, section, algo)
    if isinstance(algo, PreferenceAlgo):
        return PreferencePlan(algo, *_read(at, section, algo, OfflineBudget, frozenset()))
    refuse_distillation(at, algo, rollout)
    return DistillationPlan(algo, *_read(at, section, algo, DistillationBudget, frozenset()))


def _supervised(at: str, section: Policy, algo: StageAlgo) -> SupervisedPlan:
    refuse_supervised(at, section, algo)
    for key in section.settings:
        if key not in OfflineBudget.model_fields:
            raise ConfigError(f"{at}.{key}: {algo.name!r} has no such key.{nearest(key, OfflineBudget.model_fields)}")
    return SupervisedPlan(algo, validated(OfflineBudget, section.settings, at=at))


def _composed(at: str, section: Policy) -> SectionAlgo:
    """The section's algorithm with the choices that the section replaces."""
    algo = ALGOS.get(section.algorithm)
    if algo is None:
        raise ConfigError(f"{at}.algorithm={section.algorithm}: unknown algorithm.{nearest(section.algorithm, ALGOS)}")
    if isinstance(algo, StageAlgo):
        raise ConfigError(
            f"{at}.algorithm={section.algorithm}: that is a stage of its own, with its own section "
            f"`{algo.stage}:` of params.yaml. Policies start from models/sft."
        )
    chosen = {key: value for key, value in section.settings.items() if key in choices_of(algo)}
    algo = composed(algo, chosen, at)
    if isinstance(algo, PolicyAlgo) and "replay_steps" in section.settings:
        algo = replace(algo, replay=True)
    return algo


def _read(
    at: str, section: Policy, algo: SectionAlgo, shape: type[BaseModel], optional: frozenset[str]
) -> tuple[Any, dict[str, float]]:
    """The section's budget and numbers, every key accounted for."""
    legal = algo.numbers | optional
    budget: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for key, value in section.settings.items():
        if key in shape.model_fields:
            budget[key] = value
        elif key in legal:
            numbers[key] = value
        elif key not in choices_of(algo):
            valid = [*shape.model_fields, *legal, *choices_of(algo)]
            raise ConfigError(foreign(f"{at}.{key}", value, key, algo) or f"{at}.{key}: {algo.name!r} has no such "
                              f"key.{nearest(key, valid)}")  # fmt: skip
    for key in sorted(algo.numbers - numbers.keys()):
        raise ConfigError(f"{at}.{key}: missing; {algo.name!r} reads it. Add the key.")
    validated(Numbers, numbers, at=at)
    return validated(shape, budget, at=at), numbers
