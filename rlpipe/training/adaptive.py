"""Small things that remember from step to step. Each is part of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rlpipe.algos.base import KL, picked
from rlpipe.ops.rewards import clipped, scaled, standardised

# An adaptive weight stays within this factor of where it began: a KL of 0 before anything is learned would otherwise
# halve it to nothing.
COEFFICIENT_RANGE = 64.0


class Coefficient:
    """The weight of the KL term, as its control moves it."""

    def __init__(self, kl: KL, numbers: Mapping[str, float]) -> None:
        self._control, self._numbers = kl.control, picked(kl.control, numbers)
        self._start = self.value = numbers.get("kl_coef", 0.0)

    def follow(self, kl: float) -> None:
        """Take in a step's measured KL, nats a response."""
        moved = self._control(self.value, kl, **self._numbers)
        self.value = min(max(moved, self._start / COEFFICIENT_RANGE), self._start * COEFFICIENT_RANGE)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class RunningMean:
    """An exponential mean of past steps' scores, corrected for its start; 0 before the first."""

    def __init__(self, decay: float) -> None:
        self._decay, self._sum, self._weight = decay, 0.0, 0.0

    @property
    def value(self) -> float:
        return self._sum / self._weight if self._weight else 0.0

    def follow(self, mean: float) -> None:
        """Take in a step's mean."""
        self._sum = self._decay * self._sum + (1 - self._decay) * mean
        self._weight = self._decay * self._weight + (1 - self._decay)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sum, self._weight = state["sum"], state["weight"]


class RewardShaping:
    """What is done to scores before they become rewards: normalise, scale, clip, in this order, each if asked.

    Normalising takes the step's own mean and spread, or those of all scores so far, the step's included.
    """

    def __init__(self, norm: str | None, numbers: Mapping[str, float]) -> None:
        self._norm, self._numbers = norm, numbers
        self._count, self._mean, self._square = 0, 0.0, 0.0

    def __call__(self, score_B: Tensor) -> Tensor:
        """[B] shaped scores. Raw ones are taken in on the way."""
        if self._norm == "step":
            score_B = standardised(score_B, score_B.mean().item(), score_B.std(unbiased=False).item())
        if self._norm == "running":
            self._take_in(score_B)
            score_B = standardised(score_B, self._mean, math.sqrt(self._square / self._count))
        if "reward_scale" in self._numbers:
            score_B = scaled(score_B, reward_scale=self._numbers["reward_scale"])
        if "reward_clip" in self._numbers:
            score_B = clipped(score_B, reward_clip=self._numbers["reward_clip"])
        return score_B

    def _take_in(self, score_B: Tensor) -> None:
        """Count, mean and summed squared distances of two parts together (Chan, Golub, LeVeque 1979)."""
        count, mean = len(score_B), score_B.mean().item()
        square = (score_B - mean).square().sum().item()
        gap, total = mean - self._mean, self._count + count
        self._square += square + gap * gap * self._count * count / total
        self._mean += gap * count / total
        self._count = total

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count, self._mean, self._square = state["count"], state["mean"], state["square"]
