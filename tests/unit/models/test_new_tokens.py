"""Embeddings for tokens that a model has never met: seeded, and the others untouched."""

from __future__ import annotations

import copy
from typing import Any

import torch

from rlpipe.models.load import with_tokens


def test_known_rows_stay_and_new_ones_depend_on_the_seed_alone(tiny: Any) -> None:
    before = tiny.get_input_embeddings().weight.detach().clone()  # 64 rows
    models = []
    for noise, seed in ((1, 17), (2, 17), (1, 18)):
        torch.manual_seed(noise)
        models.append(with_tokens(copy.deepcopy(tiny), 60, 70, seed))
    weights = [model.get_input_embeddings().weight for model in models]
    assert weights[0].shape == (70, 32)
    assert torch.equal(weights[0][:60], before[:60])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0][60:], weights[2][60:])
    assert models[0].get_output_embeddings().weight is weights[0]  # still tied
    assert models[0].config.vocab_size == 70
    # 10 rows of 32 numbers from N(0, 0.02): their spread is known to 4%.
    assert abs(weights[0][60:].std().item() - 0.02) < 0.004


def test_without_a_new_token_nothing_changes(tiny: Any) -> None:
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    after = with_tokens(tiny, 64, 64, 17).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
