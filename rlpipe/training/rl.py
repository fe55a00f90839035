"""Online RL: sample, score, estimate advantages, improve. One trainer for every policy-gradient algorithm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlpipe.algos.base import picked
from rlpipe.algos.objective import policy_objective, token_means, value_objective
from rlpipe.algos.plan import RLPlan
from rlpipe.checkpoint.store import Rows, Store
from rlpipe.dataio.batches import batch_indices
from rlpipe.errors import GateError, RewardError
from rlpipe.models.forward import response_logits, token_scores
from rlpipe.models.learner import Reference
from rlpipe.ops.masking import masked_mean, masked_std, zero_outside
from rlpipe.ops.rewards import kl_penalised, terminal
from rlpipe.ops.value import explained_variance
from rlpipe.training.batching import Batching, slices
from rlpipe.training.loop import Phases, Recorder, StepResult, run_steps
from rlpipe.training.samples import (
    Sampler,
    Samples,
    Scorer,
    gold_mean,
    kl_metrics,
    length_metrics,
    logp_in_parts,
    reference_logp,
    score_metrics,
)
from rlpipe.training.step import Learner
from rlpipe.types import PaddedBatch, Totals

# Largest log-prob difference (nats) at step 0 between what must be the same model: float32 arithmetic in
# another order, or bfloat16's three digits.
GATE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}


@dataclass(frozen=True)
class Experience:
    """One step's samples with everything the update needs. All [B, T], no grad, 0 where masked.

    old_logp_BT: nats, the policy that sampled, at the sampling temperature.
    ref_logp_BT: nats, the frozen reference, untempered.
    """

    batch: PaddedBatch
    old_logp_BT: Tensor
    ref_logp_BT: Tensor
    old_value_BT: Tensor
    adv_BT: Tensor
    return_BT: Tensor

    def rows(self, index: Tensor | slice) -> Experience:
        """Some of the sequences."""
        tensors = (self.old_logp_BT, self.ref_logp_BT, self.old_value_BT, self.adv_BT, self.return_BT)
        return Experience(self.batch.rows(index), *(tensor[index] for tensor in tensors))


class RLTrainer:
    """Improves `policy` by `plan`. `critic` is a scorer model exactly when the algorithm has a value loss."""

    def __init__(
        self,
        plan: RLPlan,
        policy: nn.Module,
        reference: Reference,
        critic: nn.Module | None,
        sampler: Sampler,
        reward: Scorer,
        gold: Scorer,
        batching: Batching,
        seed: int,
    ) -> None:
        assert (critic is not None) == (plan.algo.value_loss is not None)
        self._plan, self._policy, self._reference, self._critic = plan, policy, reference, critic
        self._sampler, self._reward, self._gold = sampler, reward, gold
        self._batching, self._seed = batching, seed
        updates = plan.budget.steps * plan.budget.epochs * plan.budget.minibatches
        self._learners = {"policy": Learner(policy, plan.budget.optim, updates)}
        if critic is not None:
            self._learners["critic"] = Learner(critic, plan.budget.optim, updates)

    def train(self, store: Store, recorder: Recorder) -> Rows:
        """Returns: one row of metrics a step."""
        return run_steps(
            self._plan.budget.steps,
            self._one_step,
            states=self._learners,
            store=store,
            recorder=recorder,
            seed=self._seed,
            shown={"reward/score_mean": "reward", "kl/ref_seq_sum": "kl", "length/mean": "len"},
        )

    def _one_step(self, step: int) -> StepResult:
        phases = Phases()
        index = batch_indices(len(self._sampler.tasks.tasks), self._plan.budget.prompts_per_step, step, self._seed)
        drawn = self._sampler.draw(index, self._plan.budget.group_size, step)
        phases.mark("rollout")
        samples, scores, metrics = self._scored(drawn)
        phases.mark("reward")
        experience, estimates = self._experience(samples, scores, is_first=step == 0)
        phases.mark("forward")
        updates = self._improve(experience, step)
        phases.mark("train")
        tokens = sum(len(completion.ids) for completion in drawn.completions)
        return StepResult({**metrics, **estimates, **updates}, tokens, phases.seconds)

    def _scored(self, drawn: Samples) -> tuple[Samples, Tensor, dict[str, float]]:
        """The samples that have a score, their scores [B], and the metrics of all.

        Raises: RewardError if none has one.
        """
        scored = self._reward(drawn.tasks, drawn.texts)
        kept = [i for i, s in enumerate(scored) if s.total is not None]
        if not kept:
            raise RewardError(f"no completion of this step has a score: {scored[0].missing}.")
        samples = drawn if len(kept) == len(scored) else drawn.select(kept, self._batching)
        score_B = torch.tensor([scored[i].total for i in kept], device=self._batching.device)
        metrics = {
            **score_metrics(scored),
            "reward/gold_mean": gold_mean(self._gold, drawn),
            "reward/frac_zero_std": _zero_spread(score_B, samples.group_B),
            **length_metrics(drawn.completions),
        }
        return samples, score_B, metrics

    def _experience(self, samples: Samples, score_B: Tensor, *, is_first: bool) -> tuple[Experience, dict[str, float]]:
        algo, numbers, batch = self._plan.algo, self._plan.numbers, samples.batch
        size, mask_BT = self._plan.budget.micro_batch_size, samples.batch.response_mask_BT
        ref_logp_BT = reference_logp(self._reference, batch, self._batching, size)
        logp_BT = self._untempered(samples)
        if is_first:
            self._gate(samples, ref_logp_BT)
        reward_BT = terminal(score_B, mask_BT)
        if algo.kl.placed == "reward":
            kl_BT = algo.kl.estimator(logp_BT, ref_logp_BT)
            reward_BT = kl_penalised(reward_BT, kl_BT, mask_BT, kl_coef=numbers["kl_coef"])
        value_BT = self._values(batch)
        advantage = algo.advantage(reward_BT, value_BT, samples.group_B, mask_BT, **picked(algo.advantage, numbers))
        metrics = {
            "reward/total_mean": reward_BT.sum(1).mean().item(),
            **kl_metrics(logp_BT, ref_logp_BT, mask_BT),
            "kl/coef": numbers["kl_coef"],
            "advantage/mean": masked_mean(advantage.adv_BT, mask_BT).item(),
            "advantage/std": masked_std(advantage.adv_BT, mask_BT).item(),
        }
        if self._critic is not None:
            metrics["value/explained_var"] = explained_variance(value_BT, advantage.return_BT, mask_BT).item()
        experience = Experience(
            batch, samples.sampler_logp_BT, ref_logp_BT, value_BT, advantage.adv_BT, advantage.return_BT
        )
        return experience, metrics

    def _untempered(self, samples: Samples) -> Tensor:
        """[B, T] nats of the sampling policy itself; the sampler's own log-probs are those at temperature 1."""
        if self._sampler.sampling.temperature == 1.0:
            return samples.sampler_logp_BT
        size = self._plan.budget.micro_batch_size
        return logp_in_parts(self._policy, samples.batch, self._batching, size, 1.0)

    def _gate(self, samples: Samples, ref_logp_BT: Tensor) -> None:
        """Before anything is learned, policy = reference and sampler = trainer, or nothing later means anything.

        Raises: GateError.
        """
        size, temperature = self._plan.budget.micro_batch_size, self._sampler.sampling.temperature
        tempered_BT = logp_in_parts(self._policy, samples.batch, self._batching, size, temperature)
        plain_BT = logp_in_parts(self._policy, samples.batch, self._batching, size, 1.0)
        tolerance = GATE_TOLERANCE[self._batching.dtype]
        for what, gap_BT in (
            ("policy and reference", plain_BT - ref_logp_BT),
            ("trainer and sampler", tempered_BT - samples.sampler_logp_BT),
        ):
            gap = gap_BT.abs().max().item()
            if not gap <= tolerance:
                raise GateError(
                    f"step 0: log-probs of {what} differ by {gap:.2g} nats (limit {tolerance}). They must be the same "
                    "model: check that both come from models/sft, in the same precision."
                )

    @torch.no_grad()
    def _values(self, batch: PaddedBatch) -> Tensor:
        """[B, T] the critic's estimates before each token; zeros without a critic."""
        if self._critic is None:
            return torch.zeros_like(batch.response_mask_BT, dtype=torch.float32)
        parts = []
        for part in slices(len(batch), self._plan.budget.micro_batch_size):
            with self._batching.precision():
                parts.append(token_scores(self._critic, batch.rows(part))[:, :-1])
        return zero_outside(torch.cat(parts), batch.response_mask_BT)

    def _improve(self, experience: Experience, step: int) -> dict[str, float]:
        """All epochs and minibatches over one step's experience. Returns: metrics averaged over the updates."""
        budget = self._plan.budget
        updates: list[dict[str, float]] = []
        for epoch in range(budget.epochs):
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + step) * 97 + epoch)
            order = torch.randperm(len(experience.batch), generator=generator).to(self._batching.device)
            updates += [self._update(experience.rows(index)) for index in order.tensor_split(budget.minibatches)]
        means = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
        return {
            **means,
            "policy/ratio_max": max(update["policy/ratio_max"] for update in updates),
            # Before the first update nothing has been learned: what differs there is sampler against trainer.
            "kl/rollout_train": updates[0]["kl/old_new"],
        }

    def _update(self, part: Experience) -> dict[str, float]:
        """One optimizer step of the policy, and one of the critic, over micro-batches."""
        mask_BT = part.batch.response_mask_BT
        totals = Totals(tokens=int(mask_BT.sum()), sequences=len(part.batch))
        micro = [part.rows(s) for s in slices(len(part.batch), self._plan.budget.micro_batch_size)]
        seen: dict[str, float] = {"policy/ratio_max": 0.0}
        update = self._learners["policy"].update(self._policy_losses(micro, totals, seen))
        seen |= {"policy/loss": update["loss"], "policy/grad_norm": update["grad_norm"], "policy/lr": update["lr"]}
        if self._critic is not None:
            update = self._learners["critic"].update(self._value_losses(self._critic, micro, totals, seen))
            seen |= {"value/loss": update["loss"], "value/grad_norm": update["grad_norm"]}
        return seen

    def _policy_losses(self, micro: Sequence[Experience], totals: Totals, seen: dict[str, float]) -> Iterator[Tensor]:
        temperature = self._sampler.sampling.temperature
        for part in micro:
            mask_BT = part.batch.response_mask_BT
            with self._batching.precision():
                response = response_logits(self._policy, part.batch)
            logp_BT = response.logp(temperature)
            plain_BT = logp_BT if temperature == 1.0 else response.logp(1.0)
            objective = policy_objective(
                self._plan.algo, self._plan.numbers, logp_BT, plain_BT,
                part.old_logp_BT, part.ref_logp_BT, part.adv_BT, mask_BT, totals,
            )  # fmt: skip
            _add(seen, objective.metrics)
            _add(seen, token_means({"policy/entropy": response.entropy()}, mask_BT, totals))
            seen["policy/ratio_max"] = max(seen["policy/ratio_max"], objective.ratio_max)
            yield objective.loss

    def _value_losses(
        self, critic: nn.Module, micro: Sequence[Experience], totals: Totals, seen: dict[str, float]
    ) -> Iterator[Tensor]:
        for part in micro:
            with self._batching.precision():
                value_BT = token_scores(critic, part.batch)[:, :-1]
            objective = value_objective(
                self._plan.algo, self._plan.numbers, value_BT,
                part.old_value_BT, part.return_BT, part.batch.response_mask_BT, totals,
            )  # fmt: skip
            _add(seen, objective.metrics)
            yield objective.loss


def _add(sums: dict[str, float], shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        sums[name] = sums.get(name, 0.0) + share


def _zero_spread(score_B: Tensor, group_B: Tensor) -> float:
    """Share of prompts whose samples all have the same score: nothing to compare there."""
    groups = [score_B[group_B == group] for group in group_B.unique()]
    return sum(bool((scores == scores[0]).all()) for scores in groups) / len(groups)
