"""The choices that a policy section may make for itself: every op by its name, key by key.

A section names an algorithm, which is a set of choices; a key below replaces one of them, so that any advantage can
meet any loss. `algos.plan` refuses what makes no sense together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, get_args

from rlpipe.algos.base import Baseline, DistillationAlgo, Placed, PolicyAlgo, PreferenceAlgo, SectionAlgo
from rlpipe.errors import ConfigError, nearest
from rlpipe.ops import advantages, aggregate, control, distill, kl, policy, preference, value


def public_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions that a module defines for others, by name, in the order of the file."""
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def _but(functions: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: function for name, function in functions.items() if name not in names}


ONLINE: Mapping[str, Mapping[str, Any]] = {
    "advantage": public_functions(advantages),
    "policy_loss": public_functions(policy),
    "aggregate": public_functions(aggregate),
    "baseline": {name: name for name in get_args(Baseline)},
    "value_loss": _but(public_functions(value), "explained_variance") | {"none": None},
    "kl_estimator": _but(public_functions(kl), "hinge"),
    "kl_placed": {name: name for name in get_args(Placed)},
    "kl_control": public_functions(control),
}
OFFLINE: Mapping[str, Mapping[str, Any]] = {"pair_loss": _but(public_functions(preference), "bradley_terry")}
DISTILLATION: Mapping[str, Mapping[str, Any]] = {"divergence": public_functions(distill)}


def choices_of(algo: SectionAlgo) -> Mapping[str, Mapping[str, Any]]:
    """The keys that may replace one of `algo`'s choices, each with its valid names."""
    if isinstance(algo, PolicyAlgo):
        return ONLINE
    return OFFLINE if isinstance(algo, PreferenceAlgo) else DISTILLATION


def composed(algo: SectionAlgo, chosen: Mapping[str, Any], at: str) -> SectionAlgo:
    """`algo` with the choices a section made. Raises: ConfigError for a name that is no such choice."""
    found = {}
    for key, name in chosen.items():
        valid = choices_of(algo)[key]
        if name not in valid:
            raise ConfigError(f"{at}.{key}={name}: unknown.{nearest(str(name), valid)}")
        found[key] = valid[name]
    if isinstance(algo, DistillationAlgo | PreferenceAlgo):
        return replace(algo, **found)
    penalty = {key.removeprefix("kl_"): found.pop(key) for key in list(found) if key.startswith("kl_")}
    return replace(algo, **found, kl=replace(algo.kl, **penalty))
