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
def score_examples(model: nn.Module, examples: Sequence[Example], batching: Batching) -> list[float]:
    """[B] scores in the scorer's normalised units (raw where it has no normaliser)."""
    mean, std = normaliser(model)
    score_B = batching.in_parts(batching.collate(examples), lambda part: sequence_scores(model, part))
    return ((score_B - mean) / std).tolist()
