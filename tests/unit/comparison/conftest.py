"""A bakeoff made up by hand: two seeds, SFT, one algorithm that samples and one that learns from pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from rlpipe.comparison.collect import Measured, Trial, Trials
from rlpipe.tracking import Cost

UNKNOWN = Cost(None, None)


@pytest.fixture
def curve() -> Callable[[Sequence[float]], tuple[Measured, ...]]:
    """A curve of these rewards, 100 tokens and 0.5 nats a step."""
    return lambda rewards: tuple(Measured(100 * (i + 1), reward, 0.5 * i) for i, reward in enumerate(rewards))


@pytest.fixture
def trials(curve: Callable[[Sequence[float]], tuple[Measured, ...]]) -> Trials:
    rising, late = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    spent = tuple(Measured(900, 0.1 * i, 0.1 * i) for i in range(7))
    return Trials(
        name="made-up",
        algorithms=("sft", "grpo", "dpo", "ppo"),
        seeds=(1, 2),
        token_budget=700,
        tasks=100,
        trials=(
            Trial("sft", 1, 0.30, 0.0, 0, (), UNKNOWN),
            Trial("sft", 2, 0.34, 0.0, 0, (), UNKNOWN),
            Trial("grpo", 1, 0.60, 2.0, 700, curve(rising), Cost(10.0, 1.0)),
            Trial("grpo", 2, 0.70, 3.0, 700, curve(late), Cost(14.0, 1.5)),
            Trial("dpo", 1, 0.50, 1.0, 900, spent, Cost(None, 0.5)),
        ),
    )
