"""From one step's numbers to what is minimised: the same for a language model and for a bandit's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rlpipe.algos.base import PolicyAlgo, picked
from rlpipe.ops.importance import effective_sample_size
from rlpipe.ops.kl import hinge
from rlpipe.ops.masking import zero_outside
from rlpipe.ops.rewards import kl_penalised
from rlpipe.types import Advantage, Totals


@dataclass(frozen=True)
class Objective:
    """A micro-batch's share of the update.

    Attributes:
        loss: scalar, carries grad.
        metrics: this part's shares of means over the update's tokens or sequences: they add up.
        ratio_N, weight_N: [N] the real tokens' ratios, and importance weights where the loss has some.
    """

    loss: Tensor
    metrics: dict[str, float]
    ratio_N: Tensor | None = None
    weight_N: Tensor | None = None


def estimate(
    algo: PolicyAlgo,
    numbers: Mapping[str, float],
    kl_coef: float,
    reward_BT: Tensor,
    kl_BT: Tensor,
    value_BT: Tensor,
    group_B: Tensor,
    mask_BT: Tensor,
) -> tuple[Tensor, Advantage]:
    """The step's rewards, KL taken off where the algorithm places it there, and its advantages.

    Args: as in `ops.advantages`; kl_BT: [B, T] nats, untempered, by the algorithm's estimator, no grad.
    """
    if algo.kl.placed == "reward":
        reward_BT = kl_penalised(reward_BT, kl_BT, mask_BT, kl_coef=kl_coef)
    advantage = algo.advantage(reward_BT, value_BT, group_B, mask_BT, **picked(algo.advantage, numbers))
    return reward_BT, advantage


def policy_objective(
    algo: PolicyAlgo,
    numbers: Mapping[str, float],
    kl_coef: float,
    logp_BT: Tensor,
    kl_BT: Tensor,
    entropy_BT: Tensor,
    old_logp_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    weight_BT: Tensor,
    totals: Totals,
) -> Objective:
    """sum(weight * token loss), the KL term where the algorithm places it in the loss, and the entropy bonus.

    Args:
        logp_BT: [B, T] nats at the sampling temperature, carries grad; old_logp_BT likewise, no grad.
        kl_BT: [B, T] nats, untempered, by the algorithm's estimator; carries grad where it is placed in the loss.
        entropy_BT: [B, T] nats; carries grad where there is a bonus (`entropy_coef`).
        adv_BT: [B, T] reward units, no grad.
        weight_BT: [B, T], these rows of the update's `aggregate`.
        totals: of the whole update.
    """
    token = algo.policy_loss(logp_BT, old_logp_BT, adv_BT, mask_BT, **picked(algo.policy_loss, numbers))
    loss = (weight_BT * token.loss_BT).sum()
    metrics = token_means({**token.metrics_BT, "policy/entropy": entropy_BT.detach()}, mask_BT, totals)
    metrics["policy/surrogate"] = loss.item()
    if algo.kl.placed == "loss":
        loss = loss + kl_coef * (weight_BT * zero_outside(kl_BT, mask_BT)).sum()
    if algo.kl.placed == "hinge":
        penalty_BT, violation_B = hinge(kl_BT, mask_BT, kl_threshold=numbers["kl_threshold"])
        penalty = kl_coef * penalty_BT.sum() / totals.sequences
        loss = loss + penalty
        metrics |= {"kl/violation": violation_B.sum().item() / totals.sequences, "kl/penalty": penalty.item()}
    if "entropy_coef" in numbers:
        loss = loss - numbers["entropy_coef"] * zero_outside(entropy_BT, mask_BT).sum() / totals.tokens
    weight_N = None if token.weight_BT is None else token.weight_BT[mask_BT]
    return Objective(loss, metrics, token.ratio_BT[mask_BT], weight_N)


def value_objective(
    algo: PolicyAlgo,
    numbers: Mapping[str, float],
    value_BT: Tensor,
    old_value_BT: Tensor,
    return_BT: Tensor,
    mask_BT: Tensor,
    totals: Totals,
) -> Objective:
    """value_coef times the mean of the value loss over the update's tokens. Arguments as in `ops.value`."""
    assert algo.value_loss is not None
    token = algo.value_loss(value_BT, old_value_BT, return_BT, mask_BT, **picked(algo.value_loss, numbers))
    loss = numbers["value_coef"] * zero_outside(token.loss_BT, mask_BT).sum() / totals.tokens
    metrics = token_means(token.metrics_BT, mask_BT, totals) | {"value/loss": loss.item()}
    return Objective(loss, metrics)


def ratio_metrics(parts: list[Objective]) -> dict[str, float]:
    """What the ratios and importance weights of a whole update say, from its micro-batches."""
    ratio_N = torch.cat([part.ratio_N for part in parts if part.ratio_N is not None])
    metrics = {
        "policy/ratio_mean": ratio_N.mean().item(),
        "policy/ratio_max": ratio_N.max().item(),
        "policy/ratio_min": ratio_N.min().item(),
    }
    weights = [part.weight_N for part in parts if part.weight_N is not None]
    if weights:
        weight_N = torch.cat(weights)
        metrics |= {
            "is/weight_mean": weight_N.mean().item(),
            "is/weight_max": weight_N.max().item(),
            "is/weight_min": weight_N.min().item(),
            "is/ess": effective_sample_size(weight_N).item(),
        }
    return metrics


def token_means(values_BT: Mapping[str, Tensor], mask_BT: Tensor, totals: Totals) -> dict[str, float]:
    """This micro-batch's share of each metric's mean over the update's tokens."""
    return {name: zero_outside(x_BT, mask_BT).sum().item() / totals.tokens for name, x_BT in values_BT.items()}
