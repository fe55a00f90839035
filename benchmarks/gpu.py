"""One GPU: tokens a second and model FLOP utilisation of rlpipe's GRPO and SFT on Qwen3-0.6B's shape, random weights.

    python -m benchmarks.gpu --run [--peak TFLOPS]

GRPO with the transformers engine: 8 prompts of 256 tokens, 16 completions each, geometric with mean 512, at most 2,048.
SFT: rows of 8,192 and of 16,384 tokens. bfloat16 autocast. Nothing is compared here: a peer on the same card is.

    MFU = FLOP of the model / (seconds * peak);   FLOP of training n tokens of rows of length L:
    6 N n + 6 n L H   (N parameters, L * H summed over layers: causal attention needs half of 12 L H)

A forward pass alone costs a third of that: GRPO's step is one training pass, the reference's forward and the rollout's.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks import ours
from benchmarks.shapes import Groups, Ids, Row, model_600m, quiet, stored

# Dense bfloat16, 10^12 FLOP a second, from the makers' data sheets.
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "4090": 165.0}


@dataclass(frozen=True)
class Scale:
    """How large the work is."""

    model: Callable[[], PreTrainedModel]
    prompts: int
    prompt_tokens: int
    group: int
    mean: int
    longest: int
    micro_tokens: int
    sft_lengths: tuple[int, ...]
    sft_rows: int


CARD = Scale(model_600m, 8, 256, 16, 512, 2048, 16_384, (8_192, 16_384), 4)


def training_flop(config: Any, parameters: int, tokens: int, length: float) -> float:
    """Forward and backward of so many tokens in rows of a length."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attended = config.num_hidden_layers * config.num_attention_heads * head
    return 6.0 * tokens * (parameters + attended * length)


def grpo(folder: Path, scale: Scale) -> tuple[float, int, float]:
    """Seconds, tokens and FLOP of a step."""
    config, parameters = _measures(folder)
    ends = frozenset(range(config.vocab_size - config.vocab_size // scale.mean, config.vocab_size))
    prompts = tuple(_ids(scale.prompt_tokens, config.vocab_size, i) for i in range(scale.prompts))
    work = Groups(folder, prompts, scale.group, scale.longest, ends, scale.micro_tokens, "bfloat16")
    took = ours.online("grpo", work, steps=2, lr=ours.STILL)
    lengths = [len(prompt) + len(completion) for prompt, completion in took.drawn[1]]
    tokens = sum(lengths)
    flop = training_flop(config, parameters, tokens, tokens / len(lengths))
    return took.seconds, tokens, flop + 2 * flop / 3


def sft(folder: Path, length: int, rows: int) -> tuple[float, int, float]:
    """Seconds, tokens and FLOP of a step; row by row."""
    config, parameters = _measures(folder)
    examples: list[Row] = [
        (_ids(length // 2, config.vocab_size, i), _ids(length - length // 2, config.vocab_size, rows + i))
        for i in range(rows)
    ]
    took = ours.sft(folder, examples, steps=3, lr=ours.STILL, micro_tokens=length, dtype="bfloat16")
    return took.seconds, length * rows, training_flop(config, parameters, length * rows, length)


def figures(folder: Path, scale: Scale, peak: float) -> list[str]:
    """A line for each piece of work; `peak` in 10^12 FLOP a second."""
    stored(scale.model, folder)
    took = {"GRPO": grpo(folder, scale)}
    took |= {f"SFT, {length:,} tokens": sft(folder, length, scale.sft_rows) for length in scale.sft_lengths}
    return [
        f"{name}: {seconds:.2f} s, {tokens / seconds:,.0f} tokens/s, MFU {flop / seconds / peak / 1e12:.1%}"
        for name, (seconds, tokens, flop) in took.items()
    ]


def _measures(folder: Path) -> tuple[Any, int]:
    """The model's config, and how many parameters its matrix products use: a tied embedding once, as the head."""
    from rlpipe.models.load import load_policy

    model = load_policy(folder, torch.device("cpu"))
    return model.config, sum(parameter.numel() for parameter in model.parameters())


def _ids(count: int, vocabulary: int, seed: int) -> Ids:
    draw = random.Random(seed)
    return tuple(draw.randrange(1, vocabulary // 2) for _ in range(count))


def _peak() -> float:
    name = torch.cuda.get_device_name()
    known = [peak for card, peak in PEAKS.items() if card in name]
    if not known:
        sys.exit(f"{name}: its peak is not known here. Say --peak with its dense bfloat16 TFLOP/s.")
    return known[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens a second and MFU on one GPU.")
    parser.add_argument("--run", action="store_true", help="without it nothing is run")
    parser.add_argument("--peak", type=float, help="10^12 FLOP a second of the card, dense bfloat16")
    given = parser.parse_args()
    if not given.run or not torch.cuda.is_available():
        print("not run: " + ("say --run" if not given.run else "PyTorch finds no CUDA device here"))
        return
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        for line in figures(Path(folder), CARD, given.peak or _peak()):
            print(line)


if __name__ == "__main__":
    main()
