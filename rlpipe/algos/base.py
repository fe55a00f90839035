"""What an algorithm is: a choice of ops, and what it needs. Numbers come from params.yaml, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from rlpipe.types import Advantage, PairLoss, TokenLoss, Totals

AdvantageOp = Callable[..., Advantage]
TokenLossOp = Callable[..., TokenLoss]
PairLossOp = Callable[..., PairLoss]
AggregateOp = Callable[[Tensor, Tensor, Totals], Tensor]
KLOp = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class KL:
    """Which estimator keeps the policy near its reference, and where it acts; its weight is `kl_coef`."""

    estimator: KLOp
    placed: Literal["reward", "loss"]


@dataclass(frozen=True)
class Needs:
    """What an algorithm cannot do without. `group` is the least number of samples per prompt."""

    group: int = 1
    why_group: str = ""


@dataclass(frozen=True)
class PolicyAlgo:
    """An online policy-gradient algorithm. `value_loss` is None exactly when there is no critic."""

    name: str
    advantage: AdvantageOp
    token_loss: TokenLossOp
    aggregate: AggregateOp
    kl: KL
    source: str
    value_loss: TokenLossOp | None = None
    needs: Needs = Needs()

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the hyper-parameters it reads from its section of params.yaml."""
        critic = {"value_coef", *numbers_of(self.value_loss)} if self.value_loss else set()
        return frozenset({"kl_coef", *numbers_of(self.advantage), *numbers_of(self.token_loss), *critic})


@dataclass(frozen=True)
class PreferenceAlgo:
    """An offline algorithm on pairs, against a frozen reference."""

    name: str
    pair_loss: PairLossOp
    source: str

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the hyper-parameters it reads from its section of params.yaml."""
        return frozenset(numbers_of(self.pair_loss))


def numbers_of(op: Callable[..., Any]) -> list[str]:
    """An op's hyper-parameters: its keyword-only arguments."""
    parameters = inspect.signature(op).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def picked(op: Callable[..., Any], numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that `op` takes, as keyword arguments."""
    return {name: numbers[name] for name in numbers_of(op)}
