"""Bradley-Terry reward model: a scalar head that ranks the chosen response above the rejected one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rlpipe.checkpoint.store import Rows, Store
from rlpipe.config.schema import RewardModel
from rlpipe.models.forward import sequence_scores
from rlpipe.ops.preference import bradley_terry
from rlpipe.training.batching import Batching
from rlpipe.training.encode import EncodedPairs
from rlpipe.training.loop import Recorder
from rlpipe.training.offline import Part, dropout_on, train_offline
from rlpipe.training.step import Learner


def train_reward_model(
    model: nn.Module,
    pairs: EncodedPairs,
    settings: RewardModel,
    batching: Batching,
    *,
    seed: int,
    store: Store,
    recorder: Recorder,
) -> Rows:
    """Minimise `bradley_terry` averaged over each step's pairs.

    Returns: one row a step with `reward_model/loss`, accuracy, margin and scores.
    """
    margins = torch.tensor(pairs.margins, device=batching.device)

    def part_of(part: Sequence[int], step: Sequence[int]) -> Part:
        # One forward for both sides: the pair shares its prompt.
        examples = [*(pairs.chosen[i] for i in part), *(pairs.rejected[i] for i in part)]
        with batching.precision():
            score_B = sequence_scores(model, batching.collate(examples))
        chosen_B, rejected_B = score_B.chunk(2)
        loss = bradley_terry(
            chosen_B,
            rejected_B,
            margins[list(part)],
            temperature=settings.temperature,
            margin_coef=settings.margin_coef,
            centring_coef=settings.centring_coef,
        )
        tokens = sum(len(prompt) + len(response) for prompt, response in examples)
        return Part(loss.loss_B.sum() / len(step), loss.metrics_B, tokens)

    with dropout_on(model):
        return train_offline(
            Learner(model, settings.optim, settings.steps),
            pairs.tokens,
            settings,
            part_of,
            batching,
            loss_name="reward_model/loss",
            shown={"reward_model/loss": "loss", "reward_model/accuracy": "acc"},
            seed=seed,
            store=store,
            recorder=recorder,
        )
