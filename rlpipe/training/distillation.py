"""Distillation: the student learns a teacher's distribution, token by token, on its own samples or the teacher's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rlpipe.algos.base import picked
from rlpipe.algos.plan import DistillationPlan
from rlpipe.checkpoint.store import Rows, Store
from rlpipe.dataio.batches import batch_indices
from rlpipe.models.forward import response_logits
from rlpipe.ops.logprobs import selective_log_softmax
from rlpipe.ops.masking import zero_outside
from rlpipe.training.batching import Batching
from rlpipe.training.loop import Phases, Recorder, StepResult, TokenBudget, run_steps
from rlpipe.training.measure import Measure
from rlpipe.training.samples import Sampler, Samples
from rlpipe.training.step import Learner


class DistillationTrainer:
    """Brings `student` nearer to `teacher`. `sampler` draws from the one whose samples the algorithm asks for."""

    def __init__(
        self,
        plan: DistillationPlan,
        student: nn.Module,
        teacher: nn.Module,
        sampler: Sampler,
        measure: Measure,
        batching: Batching,
        seed: int,
    ) -> None:
        self._plan, self._student, self._teacher = plan, student, teacher
        self._sampler, self._measure, self._batching, self._seed = sampler, measure, batching, seed
        self._learner = Learner(student, plan.budget.optim, plan.budget.steps)
        self._budget = TokenBudget(plan.budget.token_budget)

    def train(self, store: Store, recorder: Recorder) -> Rows:
        """Returns: one row of metrics a step; every `measure_every` steps also reward and KL of the student."""
        return run_steps(
            self._plan.budget.steps,
            self._one_step,
            states={"student": self._learner},
            limits={"budget": self._budget, "watch": self._measure.watch},
            store=store,
            recorder=recorder,
            seed=self._seed,
            shown={"policy/loss": "loss", "reward/score_mean": "reward", "kl/ref_seq_sum": "kl"},
        )

    def _one_step(self, step: int) -> StepResult:
        budget, phases = self._plan.budget, Phases()
        metrics = dict(self._measure.when_due(step, budget.steps))
        phases.mark("measure")
        index = batch_indices(len(self._sampler.tasks.tasks), budget.prompts_per_step, step, self._seed)
        samples = self._sampler.draw(index, budget.group_size, step)
        self._budget.spend(samples.tokens)
        phases.mark("rollout")
        teacher_nll: list[Tensor] = []
        update = self._learner.update(self._losses(samples, teacher_nll))
        phases.mark("train")
        metrics |= {
            "policy/loss": update["loss"],
            "policy/grad_norm": update["grad_norm"],
            "policy/lr": update["lr"],
            "distillation/teacher_nll": torch.cat(teacher_nll).mean().item(),
            "length/tokens_drawn": float(self._budget.drawn),
        }
        return StepResult(metrics, samples.tokens, phases.seconds)

    def _losses(self, samples: Samples, teacher_nll: list[Tensor]) -> Iterator[Tensor]:
        """The mean divergence over the step's tokens, micro-batch by micro-batch."""
        divergence, tokens = self._plan.algo.divergence, int(samples.batch.response_mask_BT.sum())
        numbers = picked(divergence, self._plan.numbers)
        for rows in self._batching.parts(samples.batch):
            part = samples.batch.rows(rows)
            mask_BT = part.response_mask_BT
            with torch.no_grad(), self._batching.precision():
                taught = response_logits(self._teacher, part)
            with self._batching.precision():
                student = response_logits(self._student, part)
            teacher_nll.append(-selective_log_softmax(taught.logits_BTV, part.response_ids_BT)[mask_BT])
            loss_BT = divergence(
                student.logits_BTV.float(), taught.logits_BTV.float(), part.response_ids_BT, mask_BT, **numbers
            )
            yield zero_outside(loss_BT, mask_BT).sum() / tokens
