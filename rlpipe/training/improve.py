"""The updates of one step: epochs and minibatches over its experience, micro-batches within an update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from rlpipe.algos.objective import Objective, policy_objective, ratio_metrics, value_objective
from rlpipe.algos.plan import RLPlan
from rlpipe.models.forward import ResponseStats, response_logits, response_stats
from rlpipe.models.learner import Reference
from rlpipe.ops.needs import needs_of
from rlpipe.training.batching import Batching
from rlpipe.training.critic import Critic, HeadCritic, Returns, SeparateCritic
from rlpipe.training.experience import Experience
from rlpipe.training.step import Learner
from rlpipe.types import PaddedBatch, Sampling, Totals

# How a metric of several updates becomes one of the step; all others are averaged.
_EXTREMES = {"policy/ratio_max": max, "policy/ratio_min": min, "is/weight_max": max, "is/weight_min": min}


class Improver:
    """Holds the policy's optimizer and, through `critic`, the critic's."""

    def __init__(
        self,
        plan: RLPlan,
        policy: nn.Module,
        reference: Reference,
        critic: Critic,
        sampling: Sampling,
        batching: Batching,
        seed: int,
    ) -> None:
        self._plan, self._policy, self._reference, self._critic = plan, policy, reference, critic
        self._sampling, self._batching, self._seed = sampling, batching, seed
        trained = nn.ModuleList([policy, critic.head]) if isinstance(critic, HeadCritic) else policy
        self.learner = Learner(trained, plan.budget.optim, updates_of(plan))
        # The metrics of the critic's update that reading a step's values was, until that step's first update.
        self._critic_learned: Mapping[str, float] | None = None

    def values(self, batch: PaddedBatch, returns: Returns) -> Tensor:
        """[B, T] the critic's estimates for fresh samples, reward units.

        Where the critic's first update learns from all of them at once, they are read once for both: it is the same
        update, as nothing that the policy learns moves the critic.

        Args:
            returns: see `SeparateCritic.read_and_learn`.
        """
        if not isinstance(self._critic, SeparateCritic) or self._plan.budget.minibatches > 1:
            return self._critic.values(batch)
        value_BT, self._critic_learned = self._critic.read_and_learn(batch, _totals(batch), returns)
        return value_BT

    def improve(self, experiences: Sequence[Experience], step: int, kl_coef: float) -> dict[str, float]:
        """All epochs and minibatches over each experience, the fresh one first. Returns: the step's metrics."""
        budget = self._plan.budget
        warming = budget.critic_warmup_steps is not None and step < budget.critic_warmup_steps
        updates: list[Mapping[str, float]] = []
        for number, experience in enumerate(experiences):
            for epoch in range(budget.epochs):
                seed = ((self._seed * 1_000_003 + step) * 97 + epoch) * 31 + number
                order = shuffled(experience.group_B, seed)
                for index in order.to(self._batching.device).tensor_split(budget.minibatches):
                    updates.append(self._update(experience.rows(index), kl_coef, warming=warming))
        metrics = {
            name: _EXTREMES[name](values) if name in _EXTREMES else sum(values) / len(values)
            for name, values in ((n, [u[n] for u in updates if n in u]) for n in {n: 0 for u in updates for n in u})
        }
        if "kl/old_new" in updates[0]:
            # Before the first update nothing has been learned: what differs there is sampler against trainer.
            metrics["kl/rollout_train"] = updates[0]["kl/old_new"]
        return metrics

    def _update(self, part: Experience, kl_coef: float, *, warming: bool) -> Mapping[str, float]:
        """One optimizer step of the policy, unless its critic is warming up, and one of the critic."""
        metrics: dict[str, float] = {}
        if not warming or isinstance(self._critic, HeadCritic):
            metrics |= self._update_policy(part, kl_coef, warming=warming)
        if isinstance(self._critic, SeparateCritic):
            learned, self._critic_learned = self._critic_learned, None
            metrics |= self._critic.update(part, _totals(part.batch)) if learned is None else learned
        return metrics

    def _update_policy(self, whole: Experience, kl_coef: float, *, warming: bool) -> dict[str, float]:
        staleness = self.learner.done - whole.born
        weight_BT = self._plan.algo.aggregate(
            whole.batch.response_mask_BT, whole.group_B, self._sampling.max_new_tokens
        )
        needed = self._needed(whole, kl_coef)
        part, weight_BT = whole.rows(needed), weight_BT[needed]
        totals, parts = _totals(part.batch), list[Objective]()

        def losses() -> Iterator[Tensor]:
            for rows in self._batching.parts(part.batch):
                policy, value = self._objectives(part.rows(rows), weight_BT[rows], totals, kl_coef, warming=warming)
                parts.extend(objective for objective in (policy, value) if objective is not None)
                yield torch.stack([o.loss for o in (policy, value) if o is not None]).sum()

        update = self.learner.update(losses())
        metrics: dict[str, float] = {}
        for objective in parts:
            for name, share in objective.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + share
        if warming:
            return metrics
        if self._plan.algo.kl.placed == "hinge":
            metrics["kl/threshold"] = self._plan.numbers["kl_threshold"]
        if self._plan.algo.replay:
            metrics["is/staleness"] = float(staleness)
        return metrics | ratio_metrics(parts) | {
            "policy/loss": update["loss"], "policy/grad_norm": update["grad_norm"], "policy/lr": update["lr"],
            "policy/skipped_frac": 1 - len(part.batch) / len(whole.batch),
        }  # fmt: skip

    def _needed(self, part: Experience, kl_coef: float) -> Tensor:
        """[M] int64: the rows that the policy's update depends on, all where more than the advantage moves it.

        A row whose advantage is 0 has no gradient of its own. Where every row is such, the first one stays: an update
        by nothing is one too, for the optimizer's momentum.
        """
        all_B = torch.arange(len(part.batch), device=part.adv_BT.device)
        kl_in_loss = self._plan.algo.kl.placed in ("loss", "hinge") and kl_coef > 0
        if kl_in_loss or "entropy_coef" in self._plan.numbers or isinstance(self._critic, HeadCritic):
            return all_B
        needed_M = all_B[(part.adv_BT != 0).any(1)]
        return needed_M if len(needed_M) else all_B[:1]

    def _objectives(
        self, part: Experience, weight_BT: Tensor, totals: Totals, kl_coef: float, *, warming: bool
    ) -> tuple[Objective | None, Objective | None]:
        """What the policy minimises on a micro-batch, and what its value head does, from one forward pass."""
        mask_BT = part.batch.response_mask_BT
        response, kl_BT = self._forward(part)
        value = None
        if isinstance(self._critic, HeadCritic):
            # While the critic warms up its error must not move the body, which is the policy's.
            value_BT = self._critic.of(response.states.detached() if warming else response.states)
            value = value_objective(
                self._plan.algo, self._plan.numbers, value_BT, part.old_value_BT, part.return_BT, mask_BT, totals
            )
        if warming:
            return None, value
        entropy_BT = response.entropy_BT if "entropy_coef" in self._plan.numbers else response.entropy_BT.detach()
        return policy_objective(
            self._plan.algo, self._plan.numbers, kl_coef, response.logp_BT,
            kl_BT, entropy_BT, part.old_logp_BT, part.adv_BT, mask_BT, weight_BT, totals,
        ), value  # fmt: skip

    def _forward(self, part: Experience) -> tuple[ResponseStats, Tensor]:
        """The policy's forward pass, and [B, T] its KL in nats, untempered.

        The KL carries grad where the loss has such a term; where it has none it is zeros.
        """
        kl, temperature = self._plan.algo.kl, self._sampling.temperature
        in_loss = kl.placed in ("loss", "hinge")
        if in_loss and needs_of(kl.estimator).vocabulary:
            with self._batching.precision():
                response = response_logits(self._policy, part.batch)
            with torch.no_grad(), self._reference() as model, self._batching.precision():
                ref_BTV = response_logits(model, part.batch).log_probs()
            return response.stats(part.batch, temperature=temperature), kl.estimator(response.log_probs(), ref_BTV)
        with self._batching.precision():
            stats = response_stats(self._policy, part.batch, temperature=temperature)
        if not in_loss:
            return stats, torch.zeros_like(part.ref_logp_BT)
        return stats, kl.estimator(stats.plain_logp_BT, part.ref_logp_BT)


def shuffled(group_B: Tensor, seed: int) -> Tensor:
    """[B] int64: the rows in an order drawn by prompts, so that minibatches cut through as few of them as can be."""
    generator = torch.Generator().manual_seed(seed)
    group_B = group_B.unique(return_inverse=True)[1].cpu()
    rank_G = torch.randperm(int(group_B.max()) + 1, generator=generator)
    return rank_G[group_B].argsort(stable=True)


def _totals(batch: PaddedBatch) -> Totals:
    return Totals(tokens=int(batch.response_mask_BT.sum()), sequences=len(batch))


def updates_of(plan: RLPlan) -> int:
    """How many optimizer steps a plan takes: what the learning-rate schedule spans."""
    budget = plan.budget
    return budget.steps * budget.epochs * budget.minibatches * int(plan.numbers.get("replay_updates", 1))
