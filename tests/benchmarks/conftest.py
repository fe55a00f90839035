"""Tiny work for either side: a decoder of 2 layers over 128 tokens, of which the last 8 end a completion."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Where the tiny model is."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from benchmarks.shapes import quiet, stored

    def tiny() -> Qwen2ForCausalLM:
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=128,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        return Qwen2ForCausalLM(config)

    quiet()
    return stored(tiny, tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def groups(folder) -> Callable:
    """make(**changes): two prompts of different lengths, 4 completions each of 8 tokens at most."""
    from benchmarks.shapes import Groups

    def make(**changes) -> Groups:
        prompts = ((5, 6, 7, 8), (9, 10, 11))
        return Groups(folder, prompts, 4, 8, frozenset(range(120, 128)), **{"micro_tokens": 20, "seed": 1, **changes})

    return make


@pytest.fixture
def rows() -> list:
    """Demonstrations of four lengths; every response ends with token 127."""
    return [
        ((5, 6, 7), (20, 21, 22, 127)),
        ((5, 8), (30, 31, 32, 33, 34, 127)),
        ((5, 8, 9, 10, 11), (30, 127)),
        ((5, 9), (30, 45, 46, 127)),
    ]


@pytest.fixture
def pairs(rows) -> list:
    """Each demonstration against another response, one token longer."""
    return [((prompt, response), (prompt, (response[0] + 1, *response))) for prompt, response in rows]
