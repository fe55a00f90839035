"""Offline preference learning: a policy from pairs, against a frozen reference."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rlpipe.algos.base import picked
from rlpipe.algos.plan import PreferencePlan
from rlpipe.checkpoint.store import Rows, Store
from rlpipe.dataio.batches import batch_indices
from rlpipe.models.forward import response_logits
from rlpipe.models.learner import Reference
from rlpipe.ops.masking import zero_outside
from rlpipe.training.batching import Batching, slices
from rlpipe.training.encode import EncodedPairs, Example
from rlpipe.training.loop import Phases, Recorder, StepResult, run_steps
from rlpipe.training.samples import (
    Sampler,
    Scorer,
    kl_metrics,
    length_metrics,
    logp_in_parts,
    reference_logp,
    score_metrics,
)
from rlpipe.training.step import Learner


def train_preference(
    plan: PreferencePlan,
    policy: nn.Module,
    reference: Reference,
    pairs: EncodedPairs,
    sampler: Sampler,
    gold: Scorer,
    batching: Batching,
    *,
    seed: int,
    store: Store,
    recorder: Recorder,
) -> Rows:
    """Minimise the algorithm's pair loss, averaged over each step's pairs.

    The reference's log-probs are computed once, before the first step.
    Returns: one row a step with the loss's metrics; every `measure_every` steps also reward and KL of samples.
    """
    budget, numbers = plan.budget, picked(plan.algo.pair_loss, plan.numbers)
    learner = Learner(policy, budget.optim, budget.steps)
    ref_chosen = _sequence_logps(reference, pairs.chosen, batching, budget.micro_batch_size)
    ref_rejected = _sequence_logps(reference, pairs.rejected, batching, budget.micro_batch_size)

    def one_step(step: int) -> StepResult:
        phases = Phases()
        index = batch_indices(len(pairs.chosen), budget.batch_size, step, seed)
        seen: dict[str, list[Tensor]] = {}
        tokens = 0
        metrics: dict[str, float] = {}
        if step % budget.measure_every == 0 or step == budget.steps - 1:
            metrics |= _measure(policy, reference, sampler, gold, batching, budget.measure_prompts, step)
            phases.mark("rollout")

        def losses() -> Iterator[Tensor]:
            nonlocal tokens
            for part in slices(len(index), budget.micro_batch_size):
                rows = index[part]
                examples = [*(pairs.chosen[i] for i in rows), *(pairs.rejected[i] for i in rows)]
                tokens += sum(len(prompt) + len(response) for prompt, response in examples)
                batch = batching.collate(examples)
                with batching.precision():
                    logp_BT = response_logits(policy, batch).logp(1.0)
                chosen_B, rejected_B = zero_outside(logp_BT, batch.response_mask_BT).sum(1).chunk(2)
                loss = plan.algo.pair_loss(chosen_B, rejected_B, ref_chosen[rows], ref_rejected[rows], **numbers)
                for name, value_B in loss.metrics_B.items():
                    seen.setdefault(name, []).append(value_B)
                yield loss.loss_B.sum() / len(index)

        update = learner.update(losses())
        phases.mark("train")
        metrics |= {name: torch.cat(values).mean().item() for name, values in seen.items()}
        metrics |= {
            "policy/loss": update["loss"],
            "policy/grad_norm": update["grad_norm"],
            "policy/lr": update["lr"],
        }
        return StepResult(metrics, tokens, phases.seconds)

    return run_steps(
        budget.steps,
        one_step,
        states={"policy": learner},
        store=store,
        recorder=recorder,
        seed=seed,
        shown={"policy/loss": "loss", "dpo/accuracy": "acc", "reward/score_mean": "reward", "kl/ref_seq_sum": "kl"},
    )


def _sequence_logps(reference: Reference, examples: list[Example], batching: Batching, size: int) -> Tensor:
    """[N] nats: the reference's log-prob of each whole response."""
    batches = batching.micro_batches(examples, size)
    return torch.cat([reference_logp(reference, batch, batching, size).sum(1) for batch in batches])


def _measure(
    policy: nn.Module,
    reference: Reference,
    sampler: Sampler,
    gold: Scorer,
    batching: Batching,
    prompts: int,
    step: int,
) -> dict[str, float]:
    """Reward and KL of samples for the same first prompts every time. The only reward here is the gold one."""
    samples = sampler.draw(range(min(prompts, len(sampler.tasks.tasks))), 1, step)
    size = len(samples.texts)
    logp_BT = logp_in_parts(policy, samples.batch, batching, size, 1.0)
    ref_BT = reference_logp(reference, samples.batch, batching, size)
    scores = score_metrics(gold(samples.tasks, samples.texts))
    return {
        **scores,
        "reward/gold_mean": scores["reward/score_mean"],
        **kl_metrics(logp_BT, ref_BT, samples.batch.response_mask_BT),
        **length_metrics(samples.completions),
    }
