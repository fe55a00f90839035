"""The whole loss of an online algorithm on one micro-batch: its token loss, aggregated, and its KL term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rlpipe.algos.base import PolicyAlgo, picked
from rlpipe.ops.masking import zero_outside
from rlpipe.types import Totals


@dataclass(frozen=True)
class Objective:
    """A micro-batch's share of the step's loss, carrying grad, and its shares of the step's token means."""

    loss: Tensor
    metrics: dict[str, float]
    ratio_max: float


def policy_objective(
    algo: PolicyAlgo,
    numbers: Mapping[str, float],
    logp_BT: Tensor,
    plain_logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor,
    adv_BT: Tensor,
    mask_BT: Tensor,
    totals: Totals,
) -> Objective:
    """aggregate(token_loss) + kl_coef aggregate(kl), the second only where the algorithm places KL in the loss.

    Args:
        logp_BT: [B, T] nats at the sampling temperature, carries grad; old_logp_BT likewise, no grad.
        plain_logp_BT: [B, T] nats, untempered, carries grad; ref_logp_BT likewise, no grad.
        adv_BT: [B, T] reward units, no grad.
        mask_BT: [B, T] bool.
        totals: of the whole optimizer step.
    """
    token = algo.token_loss(logp_BT, old_logp_BT, adv_BT, mask_BT, **picked(algo.token_loss, numbers))
    loss = algo.aggregate(token.loss_BT, mask_BT, totals)
    if algo.kl.placed == "loss":
        # Masked first, so that whatever stands under the mask sends no gradient back.
        kl_BT = algo.kl.estimator(zero_outside(plain_logp_BT, mask_BT), zero_outside(ref_logp_BT, mask_BT))
        loss = loss + numbers["kl_coef"] * algo.aggregate(kl_BT, mask_BT, totals)
    return Objective(loss, token_means(token.metrics_BT, mask_BT, totals), _ratio_max(token.metrics_BT))


def value_objective(
    algo: PolicyAlgo,
    numbers: Mapping[str, float],
    value_BT: Tensor,
    old_value_BT: Tensor,
    return_BT: Tensor,
    mask_BT: Tensor,
    totals: Totals,
) -> Objective:
    """value_coef aggregate(value_loss), for an algorithm with a critic. Arguments as in `ops.value`."""
    assert algo.value_loss is not None
    token = algo.value_loss(value_BT, old_value_BT, return_BT, mask_BT, **picked(algo.value_loss, numbers))
    loss = numbers["value_coef"] * algo.aggregate(token.loss_BT, mask_BT, totals)
    return Objective(loss, token_means(token.metrics_BT, mask_BT, totals), 0.0)


def token_means(values_BT: Mapping[str, Tensor], mask_BT: Tensor, totals: Totals) -> dict[str, float]:
    """This micro-batch's share of each metric's mean over the step's tokens."""
    return {name: zero_outside(x_BT, mask_BT).sum().item() / totals.tokens for name, x_BT in values_BT.items()}


def _ratio_max(metrics_BT: Mapping[str, Tensor]) -> float:
    return metrics_BT["policy/ratio_mean"].max().item()
