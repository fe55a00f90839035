"""Join a policy section of params.yaml with its algorithm, or refuse it before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlpipe.algos import ALGOS
from rlpipe.algos.base import PolicyAlgo, PreferenceAlgo
from rlpipe.config.load import validated
from rlpipe.config.schema import Numbers, Params, Policy, PreferenceBudget, RLBudget
from rlpipe.errors import ConfigError, nearest


@dataclass(frozen=True)
class RLPlan:
    """An online policy, ready to train."""

    algo: PolicyAlgo
    budget: RLBudget
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class PreferencePlan:
    """An offline policy, ready to train."""

    algo: PreferenceAlgo
    budget: PreferenceBudget
    numbers: Mapping[str, float]


Plan = RLPlan | PreferencePlan


def plans(params: Params) -> dict[str, Plan]:
    """Every policy section's plan. Raises: ConfigError on the first that cannot work."""
    return {name: plan(name, section) for name, section in params.policy.items()}


def plan(name: str, section: Policy) -> Plan:
    """One policy section's plan.

    Raises: ConfigError for an unknown algorithm, an unknown, missing or out-of-range key, or a combination
        that cannot work.
    """
    at = f"policy.{name}"
    algo = ALGOS.get(section.algorithm)
    if algo is None:
        raise ConfigError(f"{at}.algorithm={section.algorithm}: unknown algorithm.{nearest(section.algorithm, ALGOS)}")
    shape = RLBudget if isinstance(algo, PolicyAlgo) else PreferenceBudget
    for key in section.settings:
        if key not in shape.model_fields and key not in algo.numbers:
            valid = [*shape.model_fields, *algo.numbers]
            raise ConfigError(f"{at}.{key}: {algo.name!r} has no such key.{nearest(key, valid)}")
    for key in sorted(algo.numbers - section.settings.keys()):
        raise ConfigError(f"{at}.{key}: missing; {algo.name!r} reads it. Add the key.")
    written = {key: section.settings[key] for key in algo.numbers}
    validated(Numbers, written, at=at)
    budget = {key: value for key, value in section.settings.items() if key in shape.model_fields}
    if isinstance(algo, PolicyAlgo):
        rl = RLPlan(algo, validated(RLBudget, budget, at=at), written)
        _check_online(at, section, rl)
        return rl
    _check_source(at, section, "data/pairs", f"{algo.name!r} learns from pairs")
    return PreferencePlan(algo, validated(PreferenceBudget, budget, at=at), written)


def _check_online(at: str, section: Policy, plan: RLPlan) -> None:
    budget, needs = plan.budget, plan.algo.needs
    if budget.group_size < needs.group:
        raise ConfigError(
            f"{at}.group_size={budget.group_size}: {plan.algo.name!r} needs at least {needs.group} samples per prompt "
            f"({needs.why_group}). Set {needs.group} or more."
        )
    sequences = budget.prompts_per_step * budget.group_size
    if sequences % budget.minibatches:
        raise ConfigError(
            f"{at}.minibatches={budget.minibatches}: {sequences} sequences a step do not divide into that many equal "
            "parts. Choose a divisor."
        )
    if "reward_model" in budget.reward:
        _check_source(at, section, "models/reward_model", "its reward names reward_model")


def _check_source(at: str, section: Policy, expected: str, why: str) -> None:
    """The input that DVC tracks must be the one that the trainer reads, or a change of it would go unnoticed."""
    if section.learns_from != expected:
        raise ConfigError(f"{at}.learns_from={section.learns_from}: {why}. Set {expected}.")
