"""Where each algorithm must end on a bandit, from the formulas alone: no sampling, none of the code under proof.

Write u = log(policy / reference) and r for the rewards. With one token a response, the expected update of an arm's
logit is  policy(a) (g(a) - sum_b policy(b) g(b)),  so an algorithm rests where its drive g is the same for all arms:

    g(a) = A(a) - pull(u(a)) - e log policy(a)

    A: the expected advantage of arm a, its penalty included where the KL is placed in the reward.
    pull: what the KL term in the loss adds to the gradient per unit of log-prob; e the weight of the entropy bonus.

docs/bandit.md derives each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlpipe.algos.base import KL, PolicyAlgo
from rlpipe.bandit.offline import wins
from rlpipe.bandit.table import Bandit

# The least spread that a group's z-score divides by, as in rlpipe.ops.advantages.
_EPS = 1e-4
# Nats: an arm that falls below this log-prob does not come back.
_VANISHED = -40.0


def boltzmann(bandit: Bandit, kl_coef: float) -> Tensor:
    """[P, K] nats: the maximum of  E[r] - kl_coef KL(policy || reference),  policy = ref exp(r / kl_coef) / Z.

    Source: arXiv:2305.18290 eq. 4.
    """
    return (bandit.ref_PK + bandit.reward_PK / kl_coef).log_softmax(-1)


def best_arm(bandit: Bandit) -> Tensor:
    """[P, K] nats: all on the arm with the highest reward, -inf elsewhere. What an algorithm without KL finds."""
    return one_hot(bandit.reward_PK.argmax(-1), bandit.reward_PK.shape[-1]).to(bandit.reward_PK.dtype).log()


def resting_point(
    algo: PolicyAlgo, numbers: Mapping[str, float], kl_coef: float, bandit: Bandit, group_size: int
) -> Tensor | None:
    """[P, K] nats: where the expected update of `algo` is 0, followed from the reference; None if nowhere inside.

    Exact for siblings' means and spreads at any group size; spreads over the whole step in the limit of many draws.
    """
    bonus = numbers.get("entropy_coef", 0.0)
    if kl_is_idle(algo.kl) or kl_coef == 0:
        return best_arm(bandit) if bonus == 0 else _followed(algo, numbers, 0.0, bandit, group_size)
    if algo.kl.placed == "reward" and algo.kl.estimator.__name__ == "k1" and bonus == 0:
        # At Boltzmann's policy the penalised reward is one number for all arms of a prompt, and any baseline, spread
        # or sibling that treats the draws alike leaves an expected advantage of 0.
        return boltzmann(bandit, kl_coef)
    return _followed(algo, numbers, kl_coef, bandit, group_size)


def kl_is_idle(kl: KL) -> bool:
    """Whether the KL term has no expected gradient on a response of one token.

    k1 in the loss: sum_a policy(a) grad log policy(a) = 0. The exact KL in the reward is the same for all arms.
    """
    return kl.placed == "none" or (kl.placed, kl.estimator.__name__) in (("loss", "k1"), ("reward", "exact"))


def _followed(
    algo: PolicyAlgo, numbers: Mapping[str, float], kl_coef: float, bandit: Bandit, group_size: int,
    *, tolerance: float = 1e-9, most: int = 3_000,
) -> Tensor | None:  # fmt: skip
    """Mirror ascent along g from the reference: u rises where g exceeds its mean, until it is level.

    A step is as much shorter as the pull rises along it, and all are after a while, for where they overshoot: that
    changes the way, not where it ends.
    """
    pull = _pull(algo.kl, numbers, kl_coef)
    policy_PK = bandit.ref_PK
    for number in range(most):
        u_PK = policy_PK - bandit.ref_PK
        score_PK = bandit.reward_PK
        if algo.kl.placed == "reward":
            score_PK = score_PK - kl_coef * algo.kl.estimator(policy_PK, bandit.ref_PK)
        drive_PK = expected_advantage(algo.advantage.__name__, score_PK, policy_PK, bandit.noise, group_size)
        drive_PK = drive_PK - pull(u_PK) - numbers.get("entropy_coef", 0.0) * policy_PK
        drive_PK = drive_PK - (policy_PK.exp() * drive_PK).sum(-1, keepdim=True)
        if drive_PK.abs().max() < tolerance:
            return policy_PK
        if policy_PK.min() < _VANISHED:
            return None
        rate = 0.2 * 0.3 ** (number // 500)
        along_PK = rate * drive_PK + 1e-6
        steep_PK = (pull(u_PK + along_PK) - pull(u_PK)) / along_PK
        policy_PK = (policy_PK + rate * drive_PK / (1 + steep_PK)).log_softmax(-1)
    return None


def _pull(kl: KL, numbers: Mapping[str, float], kl_coef: float) -> Callable[[Tensor], Tensor]:
    """pull(u) of a KL term in the loss: kl_coef times the slope of what the loss holds, along log policy."""
    if kl.placed == "reward":
        return torch.zeros_like
    slope = {
        "k1": torch.zeros_like,
        "k2": lambda u: u,
        # 1 - ref / policy: averaged over the policy it is the gradient of KL(reference || policy).
        "k3": lambda u: -torch.expm1(-u),
        "exact": lambda u: u,
    }[kl.estimator.__name__]
    if kl.placed == "loss":
        return lambda u: kl_coef * slope(u)
    size = {"k1": lambda u: u, "k2": lambda u: u.square() / 2, "k3": lambda u: torch.expm1(-u) + u}
    violation = size[kl.estimator.__name__]
    # A hinge is no mean over draws but bends each: k1 has a slope of 1 there, and the excess weighs it.
    steep = torch.ones_like if kl.estimator.__name__ == "k1" else slope
    threshold = numbers["kl_threshold"]
    return lambda u: 2 * kl_coef * (violation(u) - threshold).clamp(min=0) * steep(u)


def expected_advantage(name: str, score_PK: Tensor, policy_PK: Tensor, noise: float, group_size: int) -> Tensor:
    """[P, K]: up to a constant a prompt, the mean advantage of each arm under the advantage op called `name`."""
    if name in ("group_zscore", "group_zscore_population"):
        assert noise == 0, "the spread of a small group with noise has no closed form"
        return _zscore_among_siblings(score_PK, policy_PK, group_size, sample=name == "group_zscore")
    probs_PK = policy_PK.exp()
    within = (probs_PK * (score_PK - (probs_PK * score_PK).sum(-1, keepdim=True)).square()).sum(-1).mean()
    total = (probs_PK * (score_PK - (probs_PK * score_PK).sum(-1).mean()).square()).sum(-1).mean()
    # A sample is part of its own group's mean: what is left of it is the share of the others.
    others = 1 - 1 / group_size
    divisor = {
        "group_centred": 1 / others,
        "group_centred_batch_zscore": math.sqrt((within.item() + noise**2) / others),
        "gae_whitened": math.sqrt(within.item() + noise**2),
        "batch_zscore": math.sqrt(total.item() + noise**2),
    }.get(name, 1.0)
    return score_PK / max(divisor, 1e-8)


def _zscore_among_siblings(score_PK: Tensor, policy_PK: Tensor, group_size: int, *, sample: bool) -> Tensor:
    """[P, K]: an arm's mean z-score over all the siblings that it may meet, each set as likely as the policy draws it.

    Sums over the counts n of the other group_size - 1 draws, which are multinomial.
    """
    arms = score_PK.shape[-1]
    count_NK = _counts(group_size - 1, arms).to(score_PK.dtype)
    ways_N = math.lgamma(group_size) - torch.lgamma(count_NK + 1).sum(-1)
    likely_PN = (ways_N + policy_PK @ count_NK.T).exp()
    group_KNK = count_NK + torch.eye(arms, dtype=score_PK.dtype).unsqueeze(1)
    score_P11K = score_PK[:, None, None, :]
    mean_PKN = (group_KNK * score_P11K).sum(-1) / group_size
    square_PKN = (group_KNK * (score_P11K - mean_PKN.unsqueeze(-1)).square()).sum(-1)
    spread_PKN = (square_PKN / (group_size - 1 if sample else group_size)).sqrt() + _EPS
    return (likely_PN.unsqueeze(1) * (score_PK.unsqueeze(-1) - mean_PKN) / spread_PKN).sum(-1)


def _counts(draws: int, arms: int) -> Tensor:
    """[N, K] int64: every way to spread `draws` over `arms`."""
    bars = itertools.combinations(range(draws + arms - 1), arms - 1)
    rows = [(-1, *bar, draws + arms - 1) for bar in bars]
    return torch.tensor(rows).diff(dim=1) - 1


# ---- learning from pairs ------------------------------------------------------------------------------


def ipo_optimum(bandit: Bandit, tau: float) -> Tensor:
    """[P, K] nats: policy = ref exp(p(a) / tau) / Z with p(a) the chance that arm a beats a draw of the reference.

    Source: arXiv:2310.12036 eq. 7 and theorem 2, with the reference as the policy that both arms are drawn from.
    """
    beats_PK = (wins(bandit) * bandit.ref_PK.exp().unsqueeze(1)).sum(-1)
    return (bandit.ref_PK + beats_PK / tau).log_softmax(-1)


def simpo_optimum(bandit: Bandit, beta: float, target_margin: float) -> Tensor:
    """[P, 2] nats, for two arms: where  p sigmoid(m - h) = (1 - p) sigmoid(m + h),  h = beta log(pi_0 / pi_1).

    With y = exp(h) and g = exp(m) that is  (1 - p) y^2 + (1 - 2p) g y - p = 0.  No reference enters.
    """
    p_P, g = wins(bandit)[:, 0, 1], math.exp(target_margin)
    b_P = (1 - 2 * p_P) * g
    y_P = (-b_P + (b_P.square() + 4 * p_P * (1 - p_P)).sqrt()) / (2 * (1 - p_P))
    return _two_arms(y_P.log() / beta)


def orpo_optimum(bandit: Bandit, odds_weight: float) -> Tensor:
    """[P, 2] nats, for two arms: the root t = log(pi_0 / pi_1) of  (p - sigmoid(t)) + 2 w (p - sigmoid(2t)) = 0.

    Between p itself (w = 0: imitation of what was chosen) and sigmoid(2t) = p. Falling in t, so bisection finds it.
    """
    p_P = wins(bandit)[:, 0, 1]
    low_P, high_P = torch.full_like(p_P, -50.0), torch.full_like(p_P, 50.0)
    for _ in range(80):
        t_P = (low_P + high_P) / 2
        rising_P = (p_P - torch.sigmoid(t_P)) + 2 * odds_weight * (p_P - torch.sigmoid(2 * t_P)) > 0
        low_P, high_P = torch.where(rising_P, t_P, low_P), torch.where(rising_P, high_P, t_P)
    return _two_arms(low_P)


def _two_arms(log_odds_P: Tensor) -> Tensor:
    return torch.stack([log_odds_P, torch.zeros_like(log_odds_P)], -1).log_softmax(-1)
