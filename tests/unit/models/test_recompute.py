"""Layers that are computed again on the way back give the gradients that they give when everything is kept."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from rlpipe.config.schema import Adapter
from rlpipe.dataio.collate import collate
from rlpipe.errors import ModelError
from rlpipe.models.forward import response_stats
from rlpipe.models.learner import learner
from rlpipe.models.recompute import recompute
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.types import Request, Sampling

SHAPE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
BATCH = collate([((5, 6, 7), (8, 9, 1)), ((5, 6, 7), (11, 1)), ((9, 4), (12, 13, 14, 1))], 0)
MODELS = {
    "packed": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "padded": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=6)),
    "dropout": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.5)),
}


def _learned(name, *, again, adapter=None):
    """Gradients of one pass, and how many numbers were kept for it."""
    torch.manual_seed(0)
    model = MODELS[name]().train(name == "dropout")
    if again:
        recompute(model)
    policy = learner(model, adapter)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        loss = response_stats(policy, BATCH, temperature=1.0).logp_BT.sum()
    torch.manual_seed(1)  # what dropout draws the second time is what it drew the first, whatever was drawn since
    loss.backward()
    return {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}, sum(kept)


@pytest.mark.parametrize("adapter", [None, Adapter(rank=2, alpha=4, dropout=0.0)])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_the_same_and_less_is_kept(name, adapter):
    plain, all_kept = _learned(name, again=False, adapter=adapter)
    again, kept = _learned(name, again=True, adapter=adapter)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[n], again[n]) for n in plain)
    assert kept < all_kept / 2


def test_such_a_model_still_samples():
    requests, sampling = [Request((5, 6, 7), (0, 0, 0, s)) for s in range(3)], Sampling(1.0, 8)
    drawn = []
    for again in (False, True):
        torch.manual_seed(0)
        model = MODELS["packed"]().eval()
        if again:
            recompute(model)
            response_stats(model, BATCH, temperature=1.0).logp_BT.sum().backward()
        drawn.append(TransformersEngine(model, frozenset({1}), torch.device("cpu"), 4).generate(requests, sampling))
    assert drawn[0] == drawn[1]


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ModelError, match=r"gradient_checkpointing=true: Linear has no layers"):
        recompute(nn.Linear(2, 2))
