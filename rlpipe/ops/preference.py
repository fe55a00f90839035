"""Losses on pairs of responses to the same prompt, unreduced.

One signature for policies: (pairs, *, numbers) -> PairLoss. Log-probs are sums over a response's real tokens, in nats;
"implicit reward" is what the loss treats as a response's score.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlpipe.ops.needs import needs
from rlpipe.types import PairLogps, PairLoss


@needs(reference=True)
def dpo(pairs: PairLogps, *, beta: float, label_smoothing: float) -> PairLoss:
    """Direct preference optimisation; with label_smoothing > 0 its conservative form (cDPO).

        h = beta ((chosen - chosen_ref) - (rejected - rejected_ref))
        l = -(1 - s) log sigmoid(h) - s log sigmoid(-h)

    Args: beta > 0, dimensionless; label_smoothing s in [0, 0.5), the believed share of flipped labels.
    Source: arXiv:2305.18290 eq. 7; label smoothing E. Mitchell, "A note on DPO with noisy preferences", 2023.
    """
    chosen_B, rejected_B = beta * _chosen_gain(pairs), beta * _rejected_gain(pairs)
    return _logistic(chosen_B, rejected_B, label_smoothing)


def dpo_reference_free(pairs: PairLogps, *, beta: float, label_smoothing: float) -> PairLoss:
    """`dpo` against a uniform reference: the log-probs themselves are compared.

        h = beta (chosen - rejected)

    Source: arXiv:2305.18290, the authors' implementation.
    """
    return _logistic(beta * pairs.chosen_B, beta * pairs.rejected_B, label_smoothing)


@needs(reference=True)
def ipo(pairs: PairLogps, *, tau: float) -> PairLoss:
    """Identity preference optimisation: the gap is pulled to a fixed size instead of being pushed without end.

        l = ((chosen - chosen_ref) - (rejected - rejected_ref) - 1 / (2 tau))^2

    Args: tau > 0, 1 / nats. Source: arXiv:2310.12036 eq. 17, with log-probs summed over the response as there.
    """
    chosen_B, rejected_B = _chosen_gain(pairs), _rejected_gain(pairs)
    return _pair_loss((chosen_B - rejected_B - 1 / (2 * tau)).square(), tau * chosen_B, tau * rejected_B)


@needs(reference=True)
def ipo_per_token(pairs: PairLogps, *, tau: float) -> PairLoss:
    """`ipo` on log-probs averaged over each response's tokens, as the paper's experiments did (so TRL reports)."""
    chosen_B = _chosen_gain(pairs) / pairs.chosen_length_B
    rejected_B = _rejected_gain(pairs) / pairs.rejected_length_B
    return _pair_loss((chosen_B - rejected_B - 1 / (2 * tau)).square(), tau * chosen_B, tau * rejected_B)


def simpo(pairs: PairLogps, *, beta: float, target_margin: float) -> PairLoss:
    """Simple preference optimisation: the mean log-prob a token is the reward, and it must win by a margin.

        l = -log sigmoid(beta (chosen / |chosen| - rejected / |rejected|) - target_margin)

    Args: beta > 0, dimensionless; target_margin >= 0, in units of the reward. Source: arXiv:2405.14734 eq. 6.
    """
    chosen_B = beta * pairs.chosen_B / pairs.chosen_length_B
    rejected_B = beta * pairs.rejected_B / pairs.rejected_length_B
    return _pair_loss(-logsigmoid(chosen_B - rejected_B - target_margin), chosen_B, rejected_B)


def orpo(pairs: PairLogps, *, odds_weight: float) -> PairLoss:
    """Odds-ratio preference optimisation: likelihood of the chosen response plus the log-odds that it wins.

        l = -m_c - odds_weight log sigmoid(logit(exp m_c) - logit(exp m_r)),   m = mean log-prob a token

    Args: odds_weight >= 0, dimensionless (lambda in the paper). Source: arXiv:2403.07691 eq. 6 and 7.
    """
    chosen_B = pairs.chosen_B / pairs.chosen_length_B
    rejected_B = pairs.rejected_B / pairs.rejected_length_B
    odds_B = _log_odds(chosen_B) - _log_odds(rejected_B)
    loss_B = -chosen_B - odds_weight * logsigmoid(odds_B)
    return _pair_loss(loss_B, odds_weight * chosen_B, odds_weight * rejected_B)


@needs(reference=True, kl_baseline=True)
def kto(pairs: PairLogps, *, beta: float, desirable_weight: float, undesirable_weight: float) -> PairLoss:
    """Kahneman-Tversky optimisation: each response against the policy's usual distance from the reference.

        v_c = w_d (1 - sigmoid(beta (chosen - chosen_ref - z)))
        v_r = w_u (1 - sigmoid(beta (z - (rejected - rejected_ref))))
        l = (v_c + v_r) / 2,   z = pairs.kl_baseline, constant

    The two halves do not see each other; we hand them in as pairs, a desirable and an undesirable response each.
    Args: beta > 0; weights w_d, w_u > 0, dimensionless. Source: arXiv:2402.01306 eq. 8.
    """
    chosen_B, rejected_B, z = _chosen_gain(pairs), _rejected_gain(pairs), pairs.kl_baseline
    desirable_B = desirable_weight * (1 - torch.sigmoid(beta * (chosen_B - z)))
    undesirable_B = undesirable_weight * (1 - torch.sigmoid(beta * (z - rejected_B)))
    return _pair_loss((desirable_B + undesirable_B) / 2, beta * chosen_B, beta * rejected_B)


def bradley_terry(
    chosen_score_B: Tensor,
    rejected_score_B: Tensor,
    margin_B: Tensor,
    *,
    temperature: float,
    margin_coef: float,
    centring_coef: float,
) -> PairLoss:
    """Negative log-likelihood that the chosen response wins, by a margin, with scores held near 0.

        l = -log sigmoid((s_c - s_r) / temperature - margin_coef m) + centring_coef (s_c + s_r)^2

    Args:
        chosen_score_B, rejected_score_B: [B] reward units, carry grad.
        margin_B: [B] by how much the pair is known to differ; zeros where nobody said.
        temperature: > 0, reward units to one nat. margin_coef >= 0. centring_coef >= 0.
    Source: arXiv:2203.02155 eq. 1; margin arXiv:2307.09288 eq. 2; centring arXiv:2312.09244 section 3.
    """
    gap_B = chosen_score_B - rejected_score_B
    loss_B = -logsigmoid(gap_B / temperature - margin_coef * margin_B)
    loss_B = loss_B + centring_coef * (chosen_score_B + rejected_score_B).square()
    metrics = {
        "reward_model/margin": gap_B,
        "reward_model/accuracy": (gap_B > 0).float(),
        "reward_model/chosen_score": chosen_score_B,
        "reward_model/rejected_score": rejected_score_B,
    }
    return PairLoss(loss_B, {k: v.detach() for k, v in metrics.items()})


def _chosen_gain(pairs: PairLogps) -> Tensor:
    return pairs.chosen_B - pairs.chosen_ref_B


def _rejected_gain(pairs: PairLogps) -> Tensor:
    return pairs.rejected_B - pairs.rejected_ref_B


def _log_odds(mean_logp_B: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean_logp)."""
    return mean_logp_B - torch.log(-torch.expm1(mean_logp_B))


def _logistic(chosen_B: Tensor, rejected_B: Tensor, smoothing: float) -> PairLoss:
    gap_B = chosen_B - rejected_B
    loss_B = -(1 - smoothing) * logsigmoid(gap_B) - smoothing * logsigmoid(-gap_B)
    return _pair_loss(loss_B, chosen_B, rejected_B)


def _pair_loss(loss_B: Tensor, chosen_B: Tensor, rejected_B: Tensor) -> PairLoss:
    metrics = {
        "preference/chosen_reward": chosen_B,
        "preference/rejected_reward": rejected_B,
        "preference/margin": chosen_B - rejected_B,
        "preference/accuracy": (chosen_B > rejected_B).float(),
    }
    return PairLoss(loss_B, {k: v.detach() for k, v in metrics.items()})
