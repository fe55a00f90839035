"""Supervised fine-tuning: next-token loss on the response, through the chat template."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rlpipe.checkpoint.store import Rows, Store
from rlpipe.config.schema import Supervised
from rlpipe.models.forward import response_stats
from rlpipe.training.batching import Batching
from rlpipe.training.encode import Example
from rlpipe.training.loop import Recorder
from rlpipe.training.offline import Part, PartOf, dropout_on, train_offline
from rlpipe.training.step import Learner


def supervised_part(model: nn.Module, examples: Sequence[Example], batching: Batching) -> PartOf:
    """What a micro-batch costs: its share of  -sum_t log p(y_t | x, y_<t) / tokens  over the step's response tokens."""

    def part_of(part: Sequence[int], step: Sequence[int]) -> Part:
        batch = batching.collate([examples[i] for i in part])
        mask_BT = batch.response_mask_BT
        with batching.precision():
            response = response_stats(model, batch, temperature=1.0)
        loss = -response.logp_BT.sum() / sum(len(examples[i][1]) for i in step)
        hits_N = response.greedy_BT[mask_BT].float()
        return Part(loss, {"sft/token_accuracy": hits_N}, len(hits_N))

    return part_of


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
    """Minimise the mean loss of each step's tokens.

    Returns: one row a step with `sft/loss` (nats per token) and `sft/token_accuracy`.
    """
    with dropout_on(model):
        return train_offline(
            Learner(model, settings.optim, settings.steps),
            [len(prompt) + len(response) for prompt, response in examples],
            settings,
            supervised_part(model, examples, batching),
            batching,
            loss_name="sft/loss",
            shown={"sft/loss": "loss", "sft/token_accuracy": "acc"},
            seed=seed,
            store=store,
            recorder=recorder,
        )
