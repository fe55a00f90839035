"""Policy-gradient algorithms on a table. Every formula is the language model trainer's: only the forward pass differs.

The optimizer is plain gradient descent, so that where the policy comes to rest is where the expected gradient is 0.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rlpipe.algos.base import picked
from rlpipe.algos.objective import estimate, policy_objective, value_objective
from rlpipe.algos.plan import RLPlan
from rlpipe.bandit.table import Bandit, Draws, draw, kl, linear
from rlpipe.ops.logprobs import entropy, selective_log_softmax
from rlpipe.ops.needs import needs_of
from rlpipe.ops.rewards import terminal
from rlpipe.types import Totals


@dataclass(frozen=True)
class Experience:
    """One step's draws with everything an update needs. [B] or [B, 1], no grad."""

    prompt_B: Tensor
    arm_B: Tensor
    group_B: Tensor
    old_logp_BT: Tensor
    old_value_BT: Tensor
    adv_BT: Tensor
    return_BT: Tensor

    def rows(self, index: Tensor) -> Experience:
        """Some of the draws."""
        return Experience(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class Learned:
    """A whole run.

    Attributes:
        policy_SPK: [S, P, K] nats, log-probs after every step.
        kl_coef: the weight of the KL term at the end.
    """

    policy_SPK: Tensor
    kl_coef: float


class Table:
    """A softmax policy over a bandit's arms, and what its algorithm remembers from step to step.

    `behaviour_PK` ([P, K] nats) draws the arms in the policy's place, for learning off-policy; None: the policy does.
    """

    def __init__(self, plan: RLPlan, bandit: Bandit, seed: int, behaviour_PK: Tensor | None = None) -> None:
        self._plan, self._bandit, self._behaviour_PK = plan, bandit, behaviour_PK
        self._generator = torch.Generator().manual_seed(seed)
        self._chooser = random.Random(seed)
        self._kept: deque[Experience] = deque(maxlen=int(plan.numbers.get("replay_steps", 1)))
        self._scores, self._weight = 0.0, 0.0
        self.kl_coef = plan.numbers.get("kl_coef", 0.0)
        self.logits_PK = bandit.ref_PK.clone().requires_grad_()
        self.value_P = torch.zeros(len(bandit.ref_PK), dtype=torch.float64, requires_grad=True)

    @property
    def policy(self) -> Tensor:
        """[P, K] nats, log-probs, no grad."""
        return self.logits_PK.detach().log_softmax(-1)

    def train(self) -> Learned:
        """All steps of the plan."""
        return Learned(torch.stack([self.step(s) for s in range(self._plan.budget.steps)]), self.kl_coef)

    def step(self, step: int) -> Tensor:
        """Draw, estimate, improve. Returns: [P, K] the log-probs afterwards."""
        budget = self._plan.budget
        lr = linear(budget, step)
        measured = kl(self.policy, self._bandit.ref_PK).item()
        for experience in self._learn_from(self.experience(self.draw())):
            for _ in range(budget.epochs):
                order = torch.randperm(len(experience.arm_B), generator=self._generator)
                for index in order.tensor_split(budget.minibatches):
                    self._update(experience.rows(index), lr)
        control = self._plan.algo.kl.control
        self.kl_coef = control(self.kl_coef, measured, **picked(control, self._plan.numbers))
        return self.policy

    def draw(self) -> Draws:
        """A step's arms and scores."""
        sampler_PK = self.policy if self._behaviour_PK is None else self._behaviour_PK
        budget, prompts = self._plan.budget, len(self._bandit.ref_PK)
        return draw(self._bandit, sampler_PK, budget.prompts_per_step // prompts, budget.group_size, self._generator)

    def experience(self, draws: Draws) -> Experience:
        """The draws with their advantages; a running mean takes their scores in."""
        algo, numbers = self._plan.algo, self._plan.numbers
        mask_BT = torch.ones_like(draws.logp_BT, dtype=torch.bool)
        value_BT = self.value_P.detach()[draws.prompt_B].unsqueeze(1)
        with torch.no_grad():
            kl_BT = self._kl(draws.prompt_B, draws.arm_B)
        reward_BT = terminal(draws.score_B, mask_BT)
        _, advantage = estimate(algo, numbers, self.kl_coef, reward_BT, kl_BT, value_BT, draws.group_B, mask_BT)
        if algo.baseline == "running_mean":
            self._follow(draws.score_B.mean().item())
        return Experience(
            draws.prompt_B, draws.arm_B, draws.group_B, draws.logp_BT, value_BT, advantage.adv_BT, advantage.return_BT
        )

    def gradient(self, part: Experience) -> Tensor:
        """[P, K]: of what the policy minimises on these draws."""
        algo, numbers = self._plan.algo, self._plan.numbers
        mask_BT = torch.ones_like(part.adv_BT, dtype=torch.bool)
        logits_BTV = self.logits_PK[part.prompt_B].unsqueeze(1)
        objective = policy_objective(
            algo, numbers, self.kl_coef, selective_log_softmax(logits_BTV, part.arm_B.unsqueeze(1)),
            self._kl(part.prompt_B, part.arm_B), entropy(logits_BTV), part.old_logp_BT, part.adv_BT, mask_BT,
            algo.aggregate(mask_BT, part.group_B, 1), _totals(mask_BT),
        )  # fmt: skip
        return torch.autograd.grad(objective.loss, self.logits_PK)[0]

    def _update(self, part: Experience, lr: float) -> None:
        """One step of gradient descent on the logits, and one on the critic's table where there is one."""
        gradient_PK = self.gradient(part)
        if self._plan.algo.has_critic:
            mask_BT = torch.ones_like(part.adv_BT, dtype=torch.bool)
            value_BT = self.value_P[part.prompt_B].unsqueeze(1)
            objective = value_objective(
                self._plan.algo, self._plan.numbers, value_BT, part.old_value_BT, part.return_BT, mask_BT,
                _totals(mask_BT),
            )  # fmt: skip
            self.value_P = _descended(self.value_P, torch.autograd.grad(objective.loss, self.value_P)[0], lr)
        self.logits_PK = _descended(self.logits_PK, gradient_PK, lr)

    def _follow(self, mean: float) -> None:
        """Take a step's mean score into the running mean, which is corrected for its start at 0."""
        decay = self._plan.numbers["baseline_decay"]
        self._scores = decay * self._scores + (1 - decay) * mean
        self._weight = decay * self._weight + (1 - decay)
        self.value_P = torch.full_like(self.value_P, self._scores / self._weight)

    def _learn_from(self, fresh: Experience) -> Sequence[Experience]:
        """The fresh draws first, then older ones where the algorithm replays them."""
        if not self._plan.algo.replay:
            return [fresh]
        older = list(self._kept)
        self._kept.append(fresh)
        again = min(int(self._plan.numbers["replay_updates"]) - 1, len(older))
        return [fresh, *self._chooser.sample(older, again)]

    def _kl(self, prompt_B: Tensor, arm_B: Tensor) -> Tensor:
        """[B, 1] nats by the algorithm's estimator."""
        estimator = self._plan.algo.kl.estimator
        policy_BTV = self.logits_PK.log_softmax(-1)[prompt_B].unsqueeze(1)
        ref_BTV = self._bandit.ref_PK[prompt_B].unsqueeze(1)
        if needs_of(estimator).vocabulary:
            return estimator(policy_BTV, ref_BTV)
        index_BT1 = arm_B.view(-1, 1, 1)
        return estimator(policy_BTV.gather(-1, index_BT1).squeeze(-1), ref_BTV.gather(-1, index_BT1).squeeze(-1))


def _totals(mask_BT: Tensor) -> Totals:
    return Totals(tokens=mask_BT.numel(), sequences=len(mask_BT))


def _descended(parameter: Tensor, gradient: Tensor, lr: float) -> Tensor:
    return (parameter.detach() - lr * gradient).requires_grad_()
