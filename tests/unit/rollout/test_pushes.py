"""A model's weights as files that load back as the same model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlpipe.config.schema import Adapter
from rlpipe.models.learner import learner
from rlpipe.rollout.pushes import adapter_rank, adapter_weights, whole_weights

IDS = torch.tensor([[3, 5, 4, 9]])


@pytest.mark.parametrize("adapter", [None, Adapter(rank=4, alpha=8, dropout=0.0)], ids=["plain", "under an adapter"])
def test_whole_weights_load_back_untied(tiny, tmp_path, adapter):
    assert tiny.config.tie_word_embeddings
    expected = tiny(IDS).logits
    model = learner(tiny, adapter)
    with whole_weights(model, tmp_path / "w") as folder:
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(loaded(IDS).logits, expected)
    assert loaded.lm_head.weight is not loaded.model.embed_tokens.weight
    assert tiny.config.tie_word_embeddings  # the model itself stays as it was
    assert not (tmp_path / "w").exists()


def test_an_adapter_is_written_alone(tiny, tmp_path):
    model = learner(tiny, Adapter(rank=4, alpha=8, dropout=0.0))
    assert adapter_rank(model) == 4
    (tmp_path / "w").mkdir()
    (tmp_path / "w/left_by_a_killed_process").touch()
    with adapter_weights(model, tmp_path / "w") as folder:
        names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert not names & {"model.safetensors", "left_by_a_killed_process"}
