"""Supervised fine-tuning: next-token loss on the response, through the chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rlpipe.checkpoint.store import Rows, Store
from rlpipe.config.schema import Supervised
from rlpipe.dataio.batches import batch_indices
from rlpipe.models.forward import response_logits
from rlpipe.ops.aggregate import token_mean
from rlpipe.training.batching import Batching
from rlpipe.training.encode import Example
from rlpipe.training.loop import Phases, Recorder, StepResult, run_steps
from rlpipe.training.step import Learner
from rlpipe.types import Totals


def train_sft(
    model: nn.Module,
    examples: Sequence[Example],
    settings: Supervised,
    batching: Batching,
    *,
    seed: int,
    store: Store,
    recorder: Recorder,
) -> Rows:
    """Minimise  -sum_t log p(y_t | x, y_<t) / tokens  over each step's response tokens.

    Returns: one row a step with `sft/loss` (nats per token) and `sft/token_accuracy`.
    """
    learner = Learner(model, settings.optim, settings.steps)
    model.train()

    def one_step(step: int) -> StepResult:
        phases = Phases()
        rows = [examples[i] for i in batch_indices(len(examples), settings.batch_size, step, seed)]
        totals = Totals(tokens=sum(len(response) for _, response in rows), sequences=len(rows))
        hits: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            for batch in batching.micro_batches(rows, settings.micro_batch_size):
                with batching.precision():
                    response = response_logits(model, batch)
                hits.append((response.greedy_hits() & batch.response_mask_BT).sum())
                yield token_mean(-response.logp(1.0), batch.response_mask_BT, totals)

        update = learner.update(losses())
        phases.mark("train")
        metrics = {
            "sft/loss": update["loss"],
            "sft/token_accuracy": torch.stack(hits).sum().item() / totals.tokens,
            "policy/grad_norm": update["grad_norm"],
            "policy/lr": update["lr"],
        }
        return StepResult(metrics, totals.tokens, phases.seconds)

    rows = run_steps(
        settings.steps,
        one_step,
        states={"learner": learner},
        store=store,
        recorder=recorder,
        seed=seed,
        shown={"sft/loss": "loss", "sft/token_accuracy": "acc"},
    )
    model.eval()
    return rows
