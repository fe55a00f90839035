"""Process reward model: after each step of a response, how likely it is that the step is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlpipe.checkpoint.store import Rows, Store
from rlpipe.config.schema import Supervised
from rlpipe.dataio.chat import token_ends
from rlpipe.models.forward import token_scores
from rlpipe.ops.steps import step_cross_entropy
from rlpipe.training.batching import Batching
from rlpipe.training.encode import Ids
from rlpipe.training.loop import Recorder
from rlpipe.training.offline import Part, dropout_on, train_offline
from rlpipe.training.samples import Samples
from rlpipe.training.step import Learner
from rlpipe.types import PaddedBatch


@dataclass(frozen=True)
class LabelledSteps:
    """A response with its steps: `ends[k]` is the index of step k's last token, `labels[k]` 1 if it is right."""

    prompt: Ids
    response: Ids
    ends: tuple[int, ...]
    labels: tuple[float, ...]


def train_process_reward_model(
    model: nn.Module,
    rows: Sequence[LabelledSteps],
    settings: Supervised,
    batching: Batching,
    *,
    seed: int,
    store: Store,
    recorder: Recorder,
) -> Rows:
    """Minimise the cross-entropy of "this step is right", averaged over each optimizer step's labelled steps.

    Returns: one row a step with `process_reward_model/loss` (nats) and `process_reward_model/accuracy`.
    """

    def part_of(part: Sequence[int], step: Sequence[int]) -> Part:
        some = [rows[i] for i in part]
        batch = batching.collate([(row.prompt, row.response) for row in some])
        with batching.precision():
            score_BT = token_scores(model, batch)[:, 1:]
        label_BT, end_BT = _targets(some, batch)
        total = sum(len(rows[i].ends) for i in step)
        loss = step_cross_entropy(score_BT, label_BT, end_BT).sum() / total
        right_N = ((score_BT > 0) == (label_BT > 0.5))[end_BT].float()
        return Part(loss, {"process_reward_model/accuracy": right_N}, int(batch.attention_BL.sum()))

    with dropout_on(model):
        return train_offline(
            Learner(model, settings.optim, settings.steps),
            [len(row.prompt) + len(row.response) for row in rows],
            settings,
            part_of,
            batching,
            loss_name="process_reward_model/loss",
            shown={"process_reward_model/loss": "loss", "process_reward_model/accuracy": "acc"},
            seed=seed,
            store=store,
            recorder=recorder,
        )


@torch.no_grad()
def step_probabilities(model: nn.Module, rows: Sequence[LabelledSteps], batching: Batching) -> list[tuple[float, ...]]:
    """For each response the probability that each of its steps is right."""
    batch = batching.collate([(row.prompt, row.response) for row in rows])
    right_BT = torch.sigmoid(batching.in_parts(batch, lambda part: token_scores(model, part)[:, 1:]))
    return [tuple(right_BT[i, list(row.ends)].tolist()) for i, row in enumerate(rows)]


@dataclass(frozen=True)
class StepRewards:
    """A trained process reward model as a reward at the ends of steps.

        r_t = weight sigmoid(score_t) / steps of the response   where a step ends, 0 elsewhere

    Divided by the number of steps, so that writing more of them earns nothing.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    ends_of: Callable[[str], list[int]]
    batching: Batching
    weight: float

    def __call__(self, samples: Samples) -> Tensor:
        """[B, T] reward units."""
        rows = []
        for prompt, completion, text in zip(samples.prompts, samples.completions, samples.texts, strict=True):
            ends = tuple(token_ends(self.tokenizer, completion.ids, self.ends_of(text)))
            rows.append(LabelledSteps(prompt, completion.ids, ends, ()))
        reward_BT = torch.zeros(samples.batch.response_mask_BT.shape)
        for i, probabilities in enumerate(step_probabilities(self.model, rows, self.batching)):
            for end, probability in zip(rows[i].ends, probabilities, strict=True):
                reward_BT[i, end] += self.weight * probability / len(probabilities)
        return reward_BT.to(self.batching.device)


def _targets(rows: Sequence[LabelledSteps], batch: PaddedBatch) -> tuple[Tensor, Tensor]:
    """[B, T] labels, and True where a step ends."""
    label_BT = torch.zeros(batch.response_mask_BT.shape, device=batch.ids_BL.device)
    end_BT = torch.zeros_like(label_BT, dtype=torch.bool)
    for i, row in enumerate(rows):
        end_BT[i, list(row.ends)] = True
        label_BT[i, list(row.ends)] = torch.tensor(row.labels, device=label_BT.device)
    return label_BT, end_BT
