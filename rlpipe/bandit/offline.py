"""Preference and distillation algorithms on a table, through the very losses of the language model's trainers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Adam

from rlpipe.algos.base import picked
from rlpipe.algos.plan import DistillationPlan, PreferencePlan
from rlpipe.bandit.table import Bandit, draw, linear
from rlpipe.types import PairLogps


def pair_probabilities(bandit: Bandit) -> Tensor:
    """[P, K, K]: how likely a drawn pair is (prompt, chosen, rejected); sums to 1.

    Prompts are uniform, both arms are drawn from the reference and differ, and a judge prefers one after Bradley and
    Terry:  P(a beats b) = sigmoid(r_a - r_b).
    """
    ref_PK = bandit.ref_PK.exp()
    both_PKK = ref_PK.unsqueeze(2) * ref_PK.unsqueeze(1) * (1 - torch.eye(ref_PK.shape[1], dtype=ref_PK.dtype))
    both_PKK = both_PKK / both_PKK.sum((1, 2), keepdim=True)
    # Either order of drawing gives the same pair, so the chosen arm may have come first or second.
    return 2 * both_PKK * wins(bandit) / len(ref_PK)


def wins(bandit: Bandit) -> Tensor:
    """[P, K, K]: how likely the first arm is preferred to the second."""
    return torch.sigmoid(bandit.reward_PK.unsqueeze(2) - bandit.reward_PK.unsqueeze(1))


def sampled_pairs(bandit: Bandit, pairs: int, seed: int) -> Tensor:
    """[P, K, K]: each kind's share in a data set of that many drawn pairs."""
    probabilities_PKK = pair_probabilities(bandit)
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.multinomial(probabilities_PKK.flatten(), pairs, replacement=True, generator=generator)
    counts = torch.bincount(kinds, minlength=probabilities_PKK.numel())
    return counts.view_as(probabilities_PKK).to(probabilities_PKK.dtype) / pairs


def learn_pairs(plan: PreferencePlan, bandit: Bandit, share_PKK: Tensor) -> Tensor:
    """[S, P, K] nats, log-probs after every step of Adam over a whole data set of pairs.

    Pairs of one kind have one loss, so each kind is computed once and weighs its share: the same sum as over rows.
    """
    prompt_B, chosen_B, rejected_B = share_PKK.nonzero(as_tuple=True)
    share_B = share_PKK[prompt_B, chosen_B, rejected_B]
    length_B = torch.ones_like(share_B)
    numbers = picked(plan.algo.pair_loss, plan.numbers)
    logits_PK = bandit.ref_PK.clone().requires_grad_()
    optimizer = Adam([logits_PK], lr=plan.budget.optim.lr)
    policies = []
    for step in range(plan.budget.steps):
        policy_PK = logits_PK.log_softmax(-1)
        pairs = PairLogps(
            policy_PK[prompt_B, chosen_B], policy_PK[prompt_B, rejected_B],
            bandit.ref_PK[prompt_B, chosen_B], bandit.ref_PK[prompt_B, rejected_B],
            length_B, length_B, _mismatched_kl(policy_PK.detach() - bandit.ref_PK, share_PKK),
        )  # fmt: skip
        _descend(optimizer, (share_B * plan.algo.pair_loss(pairs, **numbers).loss_B).sum(), linear(plan.budget, step))
        policies.append(logits_PK.detach().log_softmax(-1))
    return torch.stack(policies)


def distil(plan: DistillationPlan, bandit: Bandit, teacher_PK: Tensor, seed: int) -> Tensor:
    """[S, P, K] nats, log-probs after every step of Adam. Args: teacher_PK: [P, K] nats, the teacher's log-probs."""
    generator = torch.Generator().manual_seed(seed)
    budget, numbers = plan.budget, picked(plan.algo.divergence, plan.numbers)
    logits_PK = bandit.ref_PK.clone().requires_grad_()
    optimizer = Adam([logits_PK], lr=budget.optim.lr)
    groups, policies = budget.prompts_per_step // len(teacher_PK), []
    for step in range(budget.steps):
        student_PK = logits_PK.detach().log_softmax(-1)
        sampler_PK = student_PK if plan.algo.samples_of == "student" else teacher_PK
        draws = draw(bandit, sampler_PK, groups, budget.group_size, generator)
        loss_BT = plan.algo.divergence(
            logits_PK[draws.prompt_B].unsqueeze(1), teacher_PK[draws.prompt_B].unsqueeze(1), draws.arm_B.unsqueeze(1),
            torch.ones_like(draws.logp_BT, dtype=torch.bool), **numbers,
        )  # fmt: skip
        _descend(optimizer, loss_BT.mean(), linear(budget, step))
        policies.append(logits_PK.detach().log_softmax(-1))
    return torch.stack(policies)


def _mismatched_kl(gain_PK: Tensor, share_PKK: Tensor) -> Tensor:
    """Scalar nats >= 0: the mean log-ratio to the reference on the chosen arms of the prompt before."""
    return (share_PKK.sum(2).roll(1, 0) * gain_PK).sum().clamp(min=0)


def _descend(optimizer: Adam, loss: Tensor, lr: float) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.param_groups[0]["lr"] = lr
    optimizer.step()
