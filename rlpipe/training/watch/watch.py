"""The watch over one policy run. Everything it remembers from step to step is part of the checkpoint."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from rlpipe.config import schema
from rlpipe.models.learner import Snapshot
from rlpipe.rewards.base import Reward
from rlpipe.rewards.judges.canaries import CanaryReport, canary_rewards
from rlpipe.training.watch.observed import Observation, Seen, observe
from rlpipe.training.watch.readings import heldout_mean, readings
from rlpipe.training.watch.sentinels import RULES, Trip, told

_log = logging.getLogger(__name__)

# A canary passes where it wins more than this share of its comparisons: it pays more than a typical honest answer.
# One that only beats the worst of them is no way up.
CANARY_PASSES = 0.5

# The first measured step's samples -> how the canaries fare against them by the reward that is trained on.
Canaries = Callable[[Seen], CanaryReport]


def canaries(reward: Reward, prompts: int) -> Canaries:
    """The canaries' rewards against the first answer to each of the first `prompts` prompts."""

    def ask(seen: Seen) -> CanaryReport:
        rows = list({task.id: row for row, task in reversed(list(enumerate(seen.tasks)))}.values())
        rows = sorted(rows)[:prompts]
        return canary_rewards(reward, [seen.tasks[row] for row in rows], [seen.texts[row] for row in rows])

    return ask


class Watch:
    """Takes in every measured step before its update. Says what it reads, and whether training may go on."""

    def __init__(self, settings: schema.Watch, weights: Snapshot, canaries: Canaries | None) -> None:
        """`weights` are the policy's; `canaries` is None where nothing is asked of them."""
        self._settings, self._weights, self._canaries = settings, weights, canaries
        sentinels = {name: getattr(settings.sentinels, name) for name in RULES}
        self._sentinels: Mapping[str, schema.Sentinel] = {n: s for n, s in sentinels.items() if s.action != "off"}
        # Held in memory only where they may be asked for.
        self._keeps = settings.keep == "best" or any(s.action == "stop" for s in self._sentinels.values())
        self._measured = 0
        self._first: list[Observation] = []
        self._last: deque[Observation] = deque(maxlen=settings.window)
        self._best_step, self._best_mean = 0, None  # type: int, float | None
        self._start: dict[str, float] = {}
        self._end: dict[str, float] = {}
        self._won: dict[str, float] = {}
        self._trips: dict[str, Trip] = {}

    def take(self, step: int, seen: Seen, kl: float) -> dict[str, float]:
        """Take in a measured step, whose samples the policy drew as it is now.

        A sentinel that trips for the first time says so in the log.

        Args: kl: nats a response.
        Returns: the readings, and how many sentinels have tripped so far.
        """
        now = {} if self._measured else self._canary_rate(seen)
        self._remember(step, observe(seen, kl, self._settings.repetition_ngram))
        if len(self._first) == self._settings.window:
            now |= readings(self._first, self._last, self._best_mean, self._settings.heldout)
        self._start = {**now, **self._start}
        self._end |= now
        self._judge(step, kl, now)
        return {f"watch/{name}": value for name, value in now.items()} | {"watch/tripped": float(len(self._trips))}

    @property
    def spent(self) -> bool:
        """Whether a sentinel has ended training."""
        return any(self._sentinels[name].action == "stop" for name in self._trips)

    def conclude(self) -> dict[str, Any]:
        """Give the policy the weights that are to be saved, and say all that was found, as plain values."""
        best = self.spent or self._settings.keep == "best"
        if best:
            self._weights.put_back()
        stopped = min((t.step for n, t in self._trips.items() if self._sentinels[n].action == "stop"), default=None)
        return {
            "measured": self._measured,
            "readings": {name: self._found(name) for name in RULES if name in self._end},
            "shares": {
                name.removesuffix("_share"): {"start": self._start[name], "end": end}
                for name, end in self._end.items()
                if name.endswith("_share")
            },
            "canaries": dict(self._won),
            "canaries_passing": self._passing,
            "kept": "best" if best else "last",
            "kept_step": self._best_step if best else None,
            "stopped_at_step": stopped,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "measured": self._measured,
            "first": [observation.state_dict() for observation in self._first],
            "last": [observation.state_dict() for observation in self._last],
            "best": [self._best_step, self._best_mean],
            "start": dict(self._start),
            "end": dict(self._end),
            "won": dict(self._won),
            "trips": {name: asdict(trip) for name, trip in self._trips.items()},
            "weights": self._weights.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._measured = state["measured"]
        self._first = [Observation.from_state(saved) for saved in state["first"]]
        self._last.extend(Observation.from_state(saved) for saved in state["last"])
        self._best_step, self._best_mean = state["best"]
        self._start, self._end, self._won = state["start"], state["end"], state["won"]
        self._trips = {name: Trip(**trip) for name, trip in state["trips"].items()}
        self._weights.load_state_dict(state["weights"])

    def _canary_rate(self, seen: Seen) -> dict[str, float]:
        if self._canaries is None:
            return {}
        results = self._canaries(seen).results
        self._won = {name: result.win_rate for name, result in results.items() if result.win_rate is not None}
        return {"canary_pass_rate": len(self._passing) / len(self._won)} if self._won else {}

    @property
    def _passing(self) -> list[str]:
        return [name for name, rate in self._won.items() if rate > CANARY_PASSES]

    def _remember(self, step: int, observation: Observation) -> None:
        """The step, and its weights where no window before ended with a better held-out reward.

        Until a window is full, the best weights are those of the first measured step.
        """
        self._last.append(observation)
        if len(self._first) < self._settings.window:
            self._first.append(observation)
        self._measured += 1
        full = len(self._last) == self._settings.window
        mean = heldout_mean(self._last) if full else None
        better = mean is not None and (self._best_mean is None or mean > self._best_mean)
        if better:
            self._best_step, self._best_mean = step, mean
        if self._keeps and (better or self._measured == 1):
            self._weights.take()

    def _judge(self, step: int, kl: float, now: Mapping[str, float]) -> None:
        for name, sentinel in self._sentinels.items():
            if name not in now or name in self._trips:
                continue
            if RULES[name].beyond(self._start[name], now[name], sentinel.limit):
                self._trips[name] = Trip(step, now[name], kl)
                _log.warning(told(name, self._start[name], self._trips[name], sentinel.limit, sentinel.action))

    def _found(self, name: str) -> dict[str, Any]:
        """A reading with its sentinel: the numbers of the report's table."""
        sentinel, trip = getattr(self._settings.sentinels, name), self._trips.get(name)
        return {
            "start": self._start[name],
            "end": self._end[name],
            "rule": RULES[name].name,
            "limit": sentinel.limit,
            "action": sentinel.action,
            "tripped": None if trip is None else asdict(trip),
        }
