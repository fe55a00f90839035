"""Rewards as compositions of components."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer, model_validator

from rlpipe.config.schema.fields import Finite, Section, Share
from rlpipe.errors import nearest

# A component's name becomes part of a metric's; these would be `reward/score_mean` and its like.
_COMPONENT = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("score", "gold", "total")


class RewardPart(BaseModel):
    """A component's part in a reward; a bare number is its weight.

    Attributes:
        weight: what the score is multiplied with in the total; 0 only logs it, or lets it be a gate.
        gate: another component of the same reward; where that one scores less than `gate_min`, this one is not
            asked and counts as 0.
        norm: subtract the mean and divide by the spread of the scores given together: of the whole batch, or of
            each prompt's own samples.
        clip: bounds put on the score after that.
        function: `module:function` of a component of the user's own, and `sha256` how its file begins to hash.
    Every other key is an option of the component.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    weight: Finite
    gate: str | None = None
    gate_min: Finite = 1.0
    norm: Literal["batch", "group"] | None = None
    clip: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    function: str | None = None
    sha256: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_a_weight(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"weight": value}
        if not isinstance(value, Mapping):
            raise ValueError("expected a weight, or {weight: ..., gate: ..., ...}")
        return value

    @model_validator(mode="after")
    def _bounds_in_order(self) -> RewardPart:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip {self.clip}: the first bound must be the lower one")
        if "gate_min" in self.model_fields_set and self.gate is None:
            raise ValueError(f"gate_min {self.gate_min:g} without a gate; name the component that gates")
        return self

    @model_serializer
    def _as_written(self) -> Any:
        written = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return self.weight if self.model_fields_set == {"weight"} else written | self.options

    @property
    def options(self) -> dict[str, Any]:
        """The component's own options, as written."""
        return dict(self.model_extra or {})


def gate_order(gates: Mapping[str, str | None]) -> list[str]:
    """The components in an order in which each stands behind its gate. Raises: ValueError on a circle."""
    try:
        return list(TopologicalSorter({name: [gate] if gate else [] for name, gate in gates.items()}).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ValueError(f"the gates go in a circle, {circle}; remove one of them") from None


def _fitting_parts(parts: dict[str, RewardPart]) -> dict[str, RewardPart]:
    for name, part in parts.items():
        if not _COMPONENT.fullmatch(name) or name in _TAKEN:
            raise ValueError(
                f"component {name!r}: a name is lower-case letters, digits and _, and none of {', '.join(_TAKEN)}, "
                "because metrics are named after it; rename it"
            )
        if part.gate is not None and part.gate not in parts:
            raise ValueError(
                f"{name}.gate={part.gate}: no such component in this reward; add it (with weight 0 if it is only a "
                f"gate).{nearest(part.gate, parts)}"
            )
    gate_order({name: part.gate for name, part in parts.items()})
    return parts


Composition = Annotated[dict[str, RewardPart], Field(min_length=1), AfterValidator(_fitting_parts)]


class Rewards(Section):
    """What holds for every reward; `max_missing` is the share of a batch that may come back without a score."""

    max_missing: Share
