"""Random decoders small enough for a CPU, and what transformers says of the tokens that somebody drew from them."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlpipe.config.schema import VLLM
from rlpipe.types import Request

EOS = frozenset({1})
# Longer than two of vLLM's cache blocks on a CPU (128 tokens), so that its prefix cache has something to keep.
PROMPT = tuple(2 + 7 * i % 60 for i in range(300))
REQUESTS = [Request(PROMPT, (17, 0, 0, sample)) for sample in range(6)] + [Request(PROMPT[:9], (17, 0, 1, 0))]
# Log-probs of the same model by other kernels, float32, nats.
CLOSE = 1e-3


def settings(base_url: str | None = None) -> VLLM:
    """`rollout.vllm` for these models."""
    return VLLM(
        base_url=base_url,
        enforce_eager=True,
        gpu_memory_utilization=0.1,
        kv_cache_gb=0.1,
        max_model_len=None,
        sleep=True,
        timeout_s=120.0,
    )


def decoder(*, tied: bool = False, max_length: int = 512) -> LlamaForCausalLM:
    """The same weights every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,  # two heads of 32: vLLM has no smaller ones on a CPU
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=max_length,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return shaken(LlamaForCausalLM(config).eval())


@torch.no_grad()
def shaken(model, by: float = 0.1):
    """Its trained weights somewhere else: the next distribution is a clearly different one."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * by)
    return model


@torch.no_grad()
def gap(model, requests, completions, temperature: float = 1.0) -> float:
    """The largest difference in nats between the sampler's log-probs and those of transformers."""
    largest = 0.0
    for request, completion in zip(requests, completions, strict=True):
        ids = torch.tensor([request.prompt_ids + completion.ids])
        start = len(request.prompt_ids)
        logp = torch.log_softmax(model(ids).logits[0, start - 1 : -1].float() / temperature, -1)
        mine = logp.gather(-1, ids[0, start:, None]).squeeze(-1)
        largest = max(largest, (mine - torch.tensor(completion.logps)).abs().max().item())
    return largest
