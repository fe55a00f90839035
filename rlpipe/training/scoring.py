"""Scores of whole examples by a trained reward model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rlpipe.models.forward import sequence_scores
from rlpipe.models.load import normaliser
from rlpipe.training.batching import Batching
from rlpipe.training.encode import Example


@torch.no_grad()
def score_examples(model: nn.Module, examples: Sequence[Example], batching: Batching, size: int) -> list[float]:
    """[B] scores in the scorer's normalised units (raw where it has no normaliser), `size` examples at a time."""
    mean, std = normaliser(model)
    scores: list[float] = []
    for batch in batching.micro_batches(examples, size):
        with batching.precision():
            scores += ((sequence_scores(model, batch) - mean) / std).tolist()
    return scores
