"""Losses on pairs of sequences, unreduced.

Sequence log-probs are sums over the response's real tokens, in nats.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from rlpipe.types import PairLoss


def dpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    chosen_ref_logp_B: Tensor,
    rejected_ref_logp_B: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> PairLoss:
    """Direct preference optimisation; with label_smoothing > 0 its conservative form (cDPO).

        h = beta ((chosen - chosen_ref) - (rejected - rejected_ref))
        l = -(1 - s) log sigmoid(h) - s log sigmoid(-h)

    Args: beta > 0, dimensionless; label_smoothing s in [0, 0.5), the believed share of flipped labels.
    Source: arXiv:2305.18290 eq. 7; label smoothing E. Mitchell, "A note on DPO with noisy preferences", 2023.
    """
    chosen_reward_B = beta * (chosen_logp_B - chosen_ref_logp_B)
    rejected_reward_B = beta * (rejected_logp_B - rejected_ref_logp_B)
    margin_B = chosen_reward_B - rejected_reward_B
    loss_B = -(1 - label_smoothing) * logsigmoid(margin_B) - label_smoothing * logsigmoid(-margin_B)
    metrics = {
        "dpo/chosen_reward": chosen_reward_B,
        "dpo/rejected_reward": rejected_reward_B,
        "dpo/margin": margin_B,
        "dpo/accuracy": (margin_B > 0).float(),
    }
    return PairLoss(loss_B, {k: v.detach() for k, v in metrics.items()})


def bradley_terry(chosen_score_B: Tensor, rejected_score_B: Tensor) -> PairLoss:
    """Negative log-likelihood that the chosen response wins:  l = -log sigmoid(s_chosen - s_rejected).

    Args: scores [B], reward units, carry grad.
    Source: arXiv:2203.02155 eq. 1.
    """
    margin_B = chosen_score_B - rejected_score_B
    metrics = {"reward_model/margin": margin_B, "reward_model/accuracy": (margin_B > 0).float()}
    return PairLoss(-logsigmoid(margin_B), {k: v.detach() for k, v in metrics.items()})
