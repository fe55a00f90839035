"""Write a policy section for an algorithm: the budget of the task's recipe, the numbers of the algorithm's source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlpipe.algos import ALGOS
from rlpipe.algos.base import PolicyAlgo, PreferenceAlgo, StageAlgo
from rlpipe.config.schema import Recipe
from rlpipe.errors import ConfigError, nearest


def section(name: str, recipe: Recipe) -> dict[str, Any]:
    """What stands under `policy.<name>` for the algorithm `name`: complete, in the order a reader expects.

    Raises: ConfigError for a name that is no algorithm, or one with a stage of its own.
    """
    algo = ALGOS.get(name)
    if algo is None:
        raise ConfigError(f"algorithm {name!r}: unknown.{nearest(name, sectionable())}")
    if isinstance(algo, StageAlgo):
        raise ConfigError(f"algorithm {name!r}: a stage of its own, not a policy section. It always runs.")
    if isinstance(algo, PolicyAlgo):
        budget = recipe.online
    else:
        budget = recipe.offline if isinstance(algo, PreferenceAlgo) else recipe.distillation
    return {"algorithm": name, **budget, **algo.recommended, **recipe.numbers.get(name, {})}


def sectionable() -> Iterable[str]:
    """The algorithms that a policy section may name."""
    return [name for name, algo in ALGOS.items() if not isinstance(algo, StageAlgo)]
