"""How near a GRPO step of group shapes comes to what this machine could do: phase by phase, seconds over a lower bound.

    python -m benchmarks.limits [--threads 2]

The bound counts the products with the model's weights alone, at the speed of the machine's own square float32 product:
no attention, no norms, no softmax. A decoding step has also to read all weights once, at the speed at which a product
with a single column reads them.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks import ours
from benchmarks.grpo import shapes_of
from benchmarks.pairs import clock
from benchmarks.phases import watched
from benchmarks.shapes import arguments
from rlpipe.models.load import load_policy

SQUARE, REPEATS = 2048, 9
_FLOAT = 4


@dataclass(frozen=True)
class Weights:
    """Numbers in a model's linear maps: of the layers, and of the head."""

    body: int
    head: int


@dataclass(frozen=True)
class Speed:
    """What a machine does in a second: operations of float32 products, bytes of weights read."""

    operations: float
    bytes: float


def weights_of(model: nn.Module) -> Weights:
    """Of a causal language model."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    maps = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    return Weights(sum(m.weight.numel() for m in maps), head.weight.numel())


def bounds(weights: Weights, prompts: Sequence[int], completions: Sequence[int], speed: Speed) -> dict[str, float]:
    """Seconds by phase that a step cannot go below.

    Args:
        prompts: tokens of each prompt, read once for all its completions.
        completions: tokens of each.
    """
    drawn, both = sum(completions), weights.body + weights.head
    prefill = 2 * (weights.body * sum(prompts) + weights.head * len(prompts)) / speed.operations
    in_flight = [sum(length > t for length in completions) for t in range(1, max(completions))]
    decoding = sum(max(2 * both * rows / speed.operations, _FLOAT * both / speed.bytes) for rows in in_flight)
    once = 2 * (weights.body * (sum(prompts) + drawn) + weights.head * drawn) / speed.operations
    return {"rollout": prefill + decoding, "reference": once, "forward": once, "backward": 2 * once}


def speed() -> Speed:
    """Of this machine, with torch's threads: medians."""
    left, right = torch.randn(2, SQUARE, SQUARE).unbind()
    square = statistics.median(clock(lambda: left @ right) for _ in range(REPEATS))
    # 64 MB: no cache of one core holds them.
    matrices, column = torch.randn(4, SQUARE, SQUARE).unbind(), torch.randn(SQUARE, 1)
    read = statistics.median(clock(lambda: [matrix @ column for matrix in matrices]) for _ in range(REPEATS))
    return Speed(2 * SQUARE**3 / square, len(matrices) * SQUARE**2 * _FLOAT / read)


def main() -> None:
    arguments("A GRPO step against the machine's limit.", pairs=1)
    machine = speed()
    print(f"products {machine.operations / 1e9:.0f} GFLOP/s, weights read at {machine.bytes / 1e9:.1f} GB/s")
    with tempfile.TemporaryDirectory() as folder, watched() as spans:
        work = shapes_of("group", Path(folder))
        took = ours.online("grpo", work, steps=3, lr=ours.STILL)
        weights = weights_of(load_policy(work.folder, ours.DEVICE))
    seconds = spans.within(took.ended, took.seconds)
    prompts = [len(prompt) for prompt in work.prompts]
    least = bounds(weights, prompts, [len(completion) for _, completion in took.drawn[-1]], machine)
    for phase, bound in least.items():
        print(f"{phase}: {seconds[phase]:.2f} s, at least {bound:.2f} s: {bound / seconds[phase]:.0%} of the limit")
    print(f"step: {took.seconds:.2f} s, at least {sum(least.values()):.2f} s")


if __name__ == "__main__":
    main()
