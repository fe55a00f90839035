"""What an op cannot do without, written beside it, so that a composition can be refused before anything loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Op = TypeVar("Op", bound=Callable[..., Any])


@dataclass(frozen=True)
class Needs:
    """Attributes:
    group: least number of samples per prompt; `because` says why.
    values: estimates of the value are unread, welcome (zeros do as well) or needed. Where they are read, a row's
        returns depend on no other row, so that a critic may learn from some rows before others are read.
    on_policy: its gradient is right only for the policy that drew the samples.
    behaviour: it divides by the probability of the draw, so the sampler must have drawn from the whole distribution.
    reference: it reads a reference's log-probs.
    kl_baseline: it compares with the policy's mean distance from the reference on unrelated responses.
    vocabulary: it reads whole distributions, not the drawn tokens' log-probs.
    """

    group: int = 1
    because: str = ""
    values: Literal["unread", "welcome", "needed"] = "unread"
    on_policy: bool = False
    behaviour: bool = False
    reference: bool = False
    kl_baseline: bool = False
    vocabulary: bool = False


_NEEDS: dict[Callable[..., Any], Needs] = {}


def needs(**what: Any) -> Callable[[Op], Op]:
    """Decorator: note an op's needs. The op itself stays as it is."""

    def note(op: Op) -> Op:
        _NEEDS[op] = Needs(**what)
        return op

    return note


def needs_of(op: Callable[..., Any]) -> Needs:
    """What `op` needs; nothing where nothing was noted."""
    return _NEEDS.get(op, Needs())
