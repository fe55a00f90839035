"""What an algorithm is: a choice of ops, and what it needs. Numbers come from params.yaml, by name.

`recommended` holds the numbers that the algorithm's source recommends. Nothing reads them in silence: they fill the
sections that `rlpipe algos NAME`, `rlpipe run --algos` and `rlpipe bakeoff` write out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from rlpipe.ops.control import fixed
from rlpipe.ops.needs import needs_of
from rlpipe.types import Advantage, PairLoss, TokenLoss, ValueLoss

AdvantageOp = Callable[..., Advantage]
PolicyLossOp = Callable[..., TokenLoss]
ValueLossOp = Callable[..., ValueLoss]
PairLossOp = Callable[..., PairLoss]
AggregateOp = Callable[[Tensor, Tensor, int], Tensor]
KLOp = Callable[[Tensor, Tensor], Tensor]
ControlOp = Callable[..., float]
DivergenceOp = Callable[..., Tensor]

Placed = Literal["reward", "loss", "hinge", "none"]
Baseline = Literal["none", "running_mean", "critic", "critic_head"]


@dataclass(frozen=True)
class KL:
    """What keeps the policy near its reference.

    Attributes:
        estimator: of KL(policy || reference) per token.
        placed: in the reward, in the loss, in the loss as the squared excess of a response's KL over a threshold
            (hinge), or nowhere: measured only.
        control: how its weight `kl_coef` follows the KL that was measured.
    """

    estimator: KLOp
    placed: Placed
    control: ControlOp = fixed

    @property
    def numbers(self) -> set[str]:
        """Names of its hyper-parameters."""
        if self.placed == "none":
            return set()
        return {"kl_coef", *numbers_of(self.control), *({"kl_threshold"} if self.placed == "hinge" else ())}


@dataclass(frozen=True)
class PolicyAlgo:
    """An online policy-gradient algorithm.

    `baseline` is where value estimates come from: nowhere, a running mean of past scores, a critic with a body of its
    own, or a head on the policy's body. `value_loss` is None exactly when there is no critic. With `replay` it also
    learns from older policies' samples.
    """

    name: str
    source: str
    advantage: AdvantageOp
    policy_loss: PolicyLossOp
    aggregate: AggregateOp
    kl: KL
    baseline: Baseline = "none"
    value_loss: ValueLossOp | None = None
    replay: bool = False
    recommended: Mapping[str, float] = field(default_factory=dict)

    @property
    def has_critic(self) -> bool:
        return self.baseline in ("critic", "critic_head")

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the hyper-parameters it reads from its section of params.yaml."""
        names = {*self.kl.numbers, *numbers_of(self.advantage), *numbers_of(self.policy_loss)}
        if self.value_loss is not None:
            names |= {"value_coef", *numbers_of(self.value_loss)}
        if self.baseline == "running_mean":
            names |= {"baseline_decay"}
        if self.replay:
            names |= {"replay_steps", "replay_updates"}
        return frozenset(names)

    @property
    def requires(self) -> tuple[str, ...]:
        """What it cannot do without, in words."""
        group = needs_of(self.advantage).group
        return ("reward", *(["critic"] if self.has_critic else []), *([f"group ≥ {group}"] if group > 1 else []))


@dataclass(frozen=True)
class PreferenceAlgo:
    """An offline algorithm on pairs."""

    name: str
    source: str
    pair_loss: PairLossOp
    recommended: Mapping[str, float] = field(default_factory=dict)

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the hyper-parameters it reads from its section of params.yaml."""
        return frozenset(numbers_of(self.pair_loss))

    @property
    def requires(self) -> tuple[str, ...]:
        """What it cannot do without, in words."""
        return ("pairs", *(["reference"] if needs_of(self.pair_loss).reference else []))


@dataclass(frozen=True)
class DistillationAlgo:
    """Learning a teacher's distribution, token by token, on samples of the student or of the teacher."""

    name: str
    source: str
    divergence: DivergenceOp
    samples_of: Literal["student", "teacher"]
    recommended: Mapping[str, float] = field(default_factory=dict)

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the hyper-parameters it reads from its section of params.yaml."""
        return frozenset(numbers_of(self.divergence))

    @property
    def requires(self) -> tuple[str, ...]:
        """What it cannot do without, in words."""
        return ("teacher",)


@dataclass(frozen=True)
class StageAlgo:
    """An algorithm with a stage and a section of params.yaml of its own, because others learn from its result.

    With `learns_policies` a policy section may name it too, for demonstrations that a stage has made.
    """

    name: str
    source: str
    stage: str
    loss: Callable[..., Any]
    requires: tuple[str, ...]
    learns_policies: bool = False
    recommended: Mapping[str, float] = field(default_factory=dict)

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the hyper-parameters of its loss."""
        return frozenset(numbers_of(self.loss))


SectionAlgo = PolicyAlgo | PreferenceAlgo | DistillationAlgo
Algo = SectionAlgo | StageAlgo


def numbers_of(op: Callable[..., Any]) -> list[str]:
    """An op's hyper-parameters: its keyword-only arguments."""
    parameters = inspect.signature(op).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def picked(op: Callable[..., Any], numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that `op` takes, as keyword arguments."""
    return {name: numbers[name] for name in numbers_of(op)}
