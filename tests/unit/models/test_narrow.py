"""The last layer makes the states that are read, where it is put together as Llama's is; elsewhere it stays as it is.

That states and gradients are the same is what test_packed.py looks at, for narrow decoders and others.
"""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2Model,
    GraniteConfig,
    GraniteModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from rlpipe.dataio.collate import collate
from rlpipe.models.packed import packed_states, packs
from rlpipe.models.packing import pack

SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
NARROW = {
    "llama": lambda: LlamaModel(LlamaConfig(**SHAPE)),
    "qwen2": lambda: Qwen2Model(Qwen2Config(**SHAPE)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**SHAPE, head_dim=8)),
    "mistral": lambda: MistralModel(MistralConfig(**SHAPE, sliding_window=None)),
    "granite, as llama": lambda: GraniteModel(GraniteConfig(**SHAPE)),
}
WIDE = {
    # Parts of the same names, put together in another way.
    "granite": lambda: GraniteModel(GraniteConfig(**SHAPE, residual_multiplier=0.5)),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
}


def _rows_of_last_mlp(decoder):
    """How many tokens the last layer's feed-forward part reads, and how many states come out."""
    seen = []
    layers = decoder.layers if hasattr(decoder, "layers") else decoder.h
    layers[-1].mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    packing = pack(collate([((5, 6, 7, 8), (9, 1)), ((5, 6, 7, 8), (1,))], 0))
    states = packed_states(decoder, packing)
    return seen, len(states)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in NARROW.items()])
def test_the_last_layer_computes_what_is_read(make):
    torch.manual_seed(0)
    decoder = make().eval()
    assert packs(decoder)
    assert _rows_of_last_mlp(decoder) == ([4], 4)  # of 7 tokens


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in WIDE.items()])
def test_another_layer_computes_all(make):
    torch.manual_seed(0)
    decoder = make().eval()
    assert packs(decoder)
    assert _rows_of_last_mlp(decoder) == ([7], 4)
