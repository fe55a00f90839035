"""The model and the prompts that the benchmarks share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlpipe.dataio.tokenizers import bpe

GSM8K = Path("../shared/realdata/gsm8k/train.jsonl")
VOCABULARY, PROMPTS, GROUP, PROMPT_TOKENS, LONGEST = 16_384, 8, 8, 256, 128
# One token in 32 ends a completion: a model that has learned nothing then stops after 32 tokens in the mean.
EOS = frozenset(range(VOCABULARY - VOCABULARY // 32, VOCABULARY))


def arguments(description: str, pairs: int) -> argparse.Namespace:
    """What every benchmark takes: the number of pairs and of threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, default=pairs)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def model_16m() -> Qwen2ForCausalLM:
    """15.7M random weights in the shape of Qwen2; always the same."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config).eval()


def gsm8k_prompts() -> list[tuple[int, ...]]:
    """8 prompts of 256 tokens of GSM8K text, in a vocabulary learnt from it."""
    texts = [f"{row['question']}\n{row['answer']}" for row in map(json.loads, GSM8K.read_text().splitlines())]
    ids = bpe(texts, VOCABULARY - len(EOS))("\n".join(texts[:200]), add_special_tokens=False)["input_ids"]
    return [tuple(ids[start : start + PROMPT_TOKENS]) for start in range(0, PROMPTS * PROMPT_TOKENS, PROMPT_TOKENS)]
