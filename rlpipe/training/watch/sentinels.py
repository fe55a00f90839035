"""When a reading is beyond its limit, and what is written down then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """How a limit is understood.

    Attributes:
        beyond: whether a reading that was `start` and is `now` lies beyond `limit`.
        words: the same for the log.
    """

    name: str
    beyond: Callable[[float, float, float], bool]
    words: str


ABOVE = Rule("above", lambda _, now, limit: now > limit, "{now:.3g} exceeds the limit {limit:g}")
RISE = Rule(
    "rise",
    lambda start, now, limit: now - start > limit,
    "{start:.3g} at first, now {now:.3g}, a rise above the limit {limit:g}",
)
RATIO = Rule(
    "ratio",
    lambda start, now, limit: now > limit * start or now * limit < start,
    "{start:.3g} at first, now {now:.3g}, more than {limit:g} times as much or as little",
)

# The readings that have a sentinel in params.yaml.
RULES: Mapping[str, Rule] = {
    "hacking_gap": ABOVE,
    "heldout_drop": ABOVE,
    "length": RATIO,
    "repetition": RISE,
    "format_tricks": RISE,
    "dominance": ABOVE,
    "canary_pass_rate": ABOVE,
}


@dataclass(frozen=True)
class Trip:
    """The first step at which a sentinel tripped, with the reading and the KL of that moment."""

    step: int
    value: float
    kl: float


def told(name: str, start: float, trip: Trip, limit: float, action: str) -> str:
    """The line of the stage's log."""
    beyond = RULES[name].words.format(start=start, now=trip.value, limit=limit)
    stops = "training ends here, and the best weights by the held-out reward are kept"
    kl = round(trip.kl, 2) + 0.0  # no -0
    then = stops if action == "stop" else "training goes on"
    return f"watch: {name} tripped at step {trip.step} (KL {kl:g} nats): {beyond}. Action {action}: {then}."
