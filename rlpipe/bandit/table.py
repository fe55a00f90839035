"""Arms, rewards and a reference policy in a table: one prompt, one token, all that matters written down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlpipe.config.schema import DistillationBudget, OfflineBudget, RLBudget


@dataclass(frozen=True)
class Bandit:
    """P prompts with K arms each. A response is one token, the arm.

    Attributes:
        reward_PK: [P, K] mean reward of an arm.
        ref_PK: [P, K] nats, log-probs of the reference, where every policy starts.
        noise: standard deviation of the normal noise on a drawn reward, reward units.
    """

    reward_PK: Tensor
    ref_PK: Tensor
    noise: float = 0.0


@dataclass(frozen=True)
class Draws:
    """B arms drawn from a table.

    Attributes:
        prompt_B, arm_B: [B] int64.
        group_B: [B] int64, which draws are siblings; a prompt may have several groups.
        logp_BT: [B, 1] nats, of the drawn arm under the policy that drew it.
        score_B: [B] reward units, noise included.
    """

    prompt_B: Tensor
    arm_B: Tensor
    group_B: Tensor
    logp_BT: Tensor
    score_B: Tensor


def bandit(reward: list[list[float]], reference: list[list[float]], noise: float = 0.0) -> Bandit:
    """A bandit from plain lists; `reference` holds probabilities. In float64: errors of rounding hide no others."""
    return Bandit(torch.tensor(reward, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64).log(), noise)


def draw(bandit: Bandit, policy_PK: Tensor, groups: int, group_size: int, generator: torch.Generator) -> Draws:
    """`groups` groups of `group_size` arms for every prompt.

    Args: policy_PK: [P, K] nats, log-probs of the policy that draws.
    """
    prompt_G = torch.arange(len(policy_PK)).repeat_interleave(groups)
    arm_B = torch.multinomial(policy_PK.exp()[prompt_G], group_size, replacement=True, generator=generator).flatten()
    prompt_B = prompt_G.repeat_interleave(group_size)
    group_B = torch.arange(len(prompt_G)).repeat_interleave(group_size)
    mean_B = bandit.reward_PK[prompt_B, arm_B]
    noise_B = torch.randn(len(mean_B), dtype=mean_B.dtype, generator=generator)
    logp_BT = policy_PK[prompt_B, arm_B].unsqueeze(1)
    return Draws(prompt_B, arm_B, group_B, logp_BT, mean_B + bandit.noise * noise_B)


def total_variation(policy: Tensor, target: Tensor) -> Tensor:
    """Half the summed difference of probabilities, averaged over prompts: 0 equal, 1 disjoint.

    Args: policy, target: [..., P, K] nats, log-probs. Returns: [...].
    """
    return (policy.exp() - target.exp()).abs().sum(-1).mean(-1) / 2


def kl(policy: Tensor, reference: Tensor) -> Tensor:
    """[...] nats: KL(policy || reference), averaged over prompts. Args: [..., P, K] log-probs, finite."""
    return (policy.exp() * (policy - reference)).sum(-1).mean(-1)


def linear(budget: RLBudget | OfflineBudget | DistillationBudget, step: int) -> float:
    """The learning rate of a step, falling to 0: what sampling noise has moved at the start comes to rest."""
    return budget.optim.lr * (1 - step / budget.steps)
