"""A policy's forward and backward behind shared prompts, and padded response by response.

    python -m benchmarks.shared_prompts [group] [long]

`group`: 8 responses each to 8 prompts of 256 tokens, of geometric length (mean 32, at most 128). `long`: 8 responses
each to 2 prompts of 128 tokens, mean 256, at most 512. Both sides are rlpipe's, with the same chunked head; what
differs is how often a prompt is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.pairs import clock, from_here, peak_memory, record, timed
from benchmarks.shapes import EOS, GROUP, LONGEST, VOCABULARY, arguments, gsm8k_prompts, model_16m
from rlpipe.dataio.collate import collate
from rlpipe.models.decoder import parts_of
from rlpipe.models.forward import States, read, read_padded, stats_of
from rlpipe.models.packed import packs
from rlpipe.types import PaddedBatch

# Rows at once: whole groups.
MICRO_BATCH = 16


@dataclass(frozen=True)
class Shape:
    """Prompts, the tokens of one, and those of a response: on average and at most."""

    name: str
    prompts: int
    prompt: int
    mean: int
    longest: int


SHAPES: Mapping[str, Shape] = {
    "group": Shape("group shapes", 8, 256, 32, LONGEST),
    "long": Shape("long responses", 2, 128, 256, 512),
}


class Inputs:
    """The model, and micro-batches of whole groups."""

    def __init__(self, shape: Shape) -> None:
        self.model: PreTrainedModel = model_16m()
        assert packs(self.model.model)
        draw = random.Random(0)
        prompts = [prompt[: shape.prompt] for prompt in gsm8k_prompts()[: shape.prompts]]
        examples = [(prompt, _response(draw, shape)) for prompt in prompts for _ in range(GROUP)]
        self.parts = [
            collate(examples[start : start + MICRO_BATCH], 0) for start in range(0, len(examples), MICRO_BATCH)
        ]
        self.tokens = sum(len(response) for _, response in examples)

    def gradients(self, way: str) -> list[Tensor]:
        """Of the mean log-prob, through micro-batches."""
        self.model.zero_grad()
        parts = parts_of(self.model)
        assert parts is not None
        for batch in self.parts:
            stats = stats_of(_WAYS[way](parts.decoder, batch), batch, parts.head, temperature=1.0)
            (-stats.logp_BT.sum() / self.tokens).backward()
        return [parameter.grad.clone() for parameter in self.model.parameters()]


def _response(draw: random.Random, shape: Shape) -> tuple[int, ...]:
    length = 1
    while length < shape.longest and draw.random() > 1 / shape.mean:
        length += 1
    return tuple(draw.randrange(5, VOCABULARY - len(EOS)) for _ in range(length))


_WAYS: dict[str, Callable[[nn.Module, PaddedBatch], States]] = {"apart": read_padded, "together": read}


def once(way: str, shape: Shape) -> None:
    """For a process of its own."""
    inputs = Inputs(shape)
    from_here()
    inputs.gradients(way)


def compared(shape: Shape, pairs: int) -> None:
    """Time and memory. Raises: AssertionError if the two ways compute different things."""
    inputs = Inputs(shape)
    gap = max(
        ((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)).item()
        for mine, theirs in zip(inputs.gradients("together"), inputs.gradients("apart"), strict=True)
    )
    assert gap < 1e-4, f"the two ways' gradients differ by {gap:.1e} of a tensor's largest"
    print(f"both ways have the same gradients within {gap:.1e} of each tensor's largest")
    name = f"gradients of {shape.name} behind shared prompts, 15.7M"
    record(
        timed(
            name,
            lambda: clock(lambda: inputs.gradients("together")),
            lambda: clock(lambda: inputs.gradients("apart")),
            pairs,
        ),
        peak_memory(f"{name}, memory", partial(once, "together", shape), partial(once, "apart", shape)),
    )


def main() -> None:
    given = arguments("A policy's gradients behind shared prompts.", pairs=5, which=list(SHAPES))
    for which in given.which:
        compared(SHAPES[which], given.pairs)


if __name__ == "__main__":
    main()
