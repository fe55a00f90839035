"""The models, prompts and rows that the benchmarks share."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from benchmarks.texts import preferences, questions
from rlpipe.dataio.chat import prompt_ids, response_ids
from rlpipe.dataio.tokenizers import bpe, characters

Ids = tuple[int, ...]
# A prompt and a response; a pair of those, the first preferred.
Row = tuple[Ids, Ids]
Pair = tuple[Row, Row]

VOCABULARY, PROMPTS, GROUP, PROMPT_TOKENS, LONGEST = 16_384, 8, 8, 256, 128
# One token in 32 ends a completion: a model that has learned nothing then stops after 32 tokens in the mean.
EOS = frozenset(range(VOCABULARY - VOCABULARY // 32, VOCABULARY))


@dataclass(frozen=True)
class Groups:
    """Work for a step of online RL: a model's folder, the prompts, and how their completions end.

    Attributes:
        group: completions to each prompt.
        longest: tokens of a completion, at most.
        eos: the tokens that end one.
        micro_tokens: tokens in a forward and backward pass, on rlpipe's side.
        rank: of a LoRA adapter; None trains all weights.
    """

    folder: Path
    prompts: tuple[Ids, ...]
    group: int
    longest: int
    eos: frozenset[int]
    micro_tokens: int
    dtype: str = "float32"
    rank: int | None = None
    seed: int = 17

    @property
    def completions(self) -> int:
        """How many a step draws."""
        return len(self.prompts) * self.group


def arguments(description: str, pairs: int, which: Sequence[str] = ()) -> argparse.Namespace:
    """What every benchmark takes: the number of pairs and of threads, and `which` of its parts (all, if none is)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, default=pairs)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    if which:
        parser.add_argument("which", nargs="*", metavar="which", help=", ".join(which))
    given = parser.parse_args()
    if which and not set(given.which) <= set(which):
        parser.error(f"unknown part {sorted(set(given.which) - set(which))}. Choose from {', '.join(which)}.")
    if which and not given.which:
        given.which = list(which)
    torch.set_num_threads(given.threads)
    quiet()
    return given


def quiet() -> None:
    """No progress bars of loading and mapping between the figures."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


# Tied embeddings, and a padding that nobody draws.
_ALL: dict[str, Any] = {"tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}


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
        **_ALL,
    )
    return Qwen2ForCausalLM(config).eval()


def model_1m() -> LlamaForCausalLM:
    """0.9M random weights: what the default `params.yaml` builds."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=96,
        **_ALL,
    )
    return LlamaForCausalLM(config).eval()


def model_500m() -> Qwen2ForCausalLM:
    """494M random weights in the shape of Qwen2.5-0.5B, in bfloat16."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        **_ALL,
    )
    model = Qwen2ForCausalLM(config).eval()
    torch.nn.Module.to(model, torch.bfloat16)
    return model


def model_600m() -> Qwen3ForCausalLM:
    """596M random weights in the shape of Qwen3-0.6B."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        **_ALL,
    )
    return Qwen3ForCausalLM(config).eval()


def group_shapes(folder: Path, prompts: Sequence[Ids], dtype: str = "float32") -> Groups:
    """8 prompts of 256 tokens, 8 completions each, geometric with mean 32, at most 128; the 15.7M model."""
    return Groups(stored(model_16m, folder), tuple(prompts), GROUP, LONGEST, EOS, 2048, dtype)


def default_shapes(folder: Path) -> Groups:
    """64 completions of about 20 tokens to sums of four numbers; the 0.9M model."""
    draw = random.Random(0)
    sums = ["".join(f"{draw.choice('+-')}{draw.randrange(10)}" for _ in range(4)) for _ in range(8)]
    tokenizer = characters(["0123456789+-="], 64)
    prompts = tuple(prompt_ids(tokenizer, text) for text in sums)
    return Groups(stored(model_1m, folder), prompts, 8, 36, frozenset({62, 63}), 4096)


def stored(model: Callable[[], PreTrainedModel], folder: Path) -> Path:
    """`folder`, where the model now is: both sides read the same file."""
    if not (folder / "config.json").exists():
        model().save_pretrained(folder)
    return folder


def gsm8k_prompts() -> list[Ids]:
    """8 prompts of 256 tokens of GSM8K text, in a vocabulary learnt from it."""
    texts = [f"{question}\n{answer}" for question, answer in questions()[1]]
    ids = bpe(texts, VOCABULARY - len(EOS))("\n".join(texts[:200]), add_special_tokens=False)["input_ids"]
    return [tuple(ids[start : start + PROMPT_TOKENS]) for start in range(0, PROMPTS * PROMPT_TOKENS, PROMPT_TOKENS)]


def demonstrations(rows: int) -> tuple[str, list[Row]]:
    """Where the text is from, and so many questions with their answers, through the chat template."""
    source, texts = questions()
    tokenizer = bpe([f"{question}\n{answer}" for question, answer in texts], VOCABULARY)
    return source, [(prompt_ids(tokenizer, q), response_ids(tokenizer, a)) for q, a in texts[:rows]]


def pairs(rows: int) -> tuple[str, list[Pair]]:
    """Where the text is from, and so many pairs of responses, through the chat template."""
    source, texts = preferences()
    tokenizer = bpe(["\n".join(row) for row in texts], VOCABULARY)
    encoded = [
        (prompt_ids(tokenizer, prompt), response_ids(tokenizer, chosen), response_ids(tokenizer, rejected))
        for prompt, chosen, rejected in texts[:rows]
    ]
    return source, [((prompt, chosen), (prompt, rejected)) for prompt, chosen, rejected in encoded]


def numbers(vocabulary: int, end: int, pad: int = 0) -> PreTrainedTokenizerFast:
    """A tokenizer whose text is the ids themselves, `t5 t17`, so that a side that wants text gets the very tokens."""
    words = {f"t{i}": i for i in range(vocabulary)}
    del words[f"t{pad}"], words[f"t{end}"]
    tokenizer = Tokenizer(models.WordLevel({**words, "<|pad|>": pad, "<|end|>": end}, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", padding_side="left"
    )
