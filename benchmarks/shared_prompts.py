"""A policy's forward and backward over group shapes: behind shared prompts, and padded response by response.

    python -m benchmarks.shared_prompts

64 responses of geometric length (mean 32, at most 128) to 8 prompts of 256 tokens. Both sides are rlpipe's, with the
same chunked head; what differs is how often a prompt is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable

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


class Inputs:
    """The model, and micro-batches of whole groups."""

    def __init__(self) -> None:
        self.model: PreTrainedModel = model_16m()
        assert packs(self.model.model)
        draw = random.Random(0)
        examples = [(prompt, _response(draw)) for prompt in gsm8k_prompts() for _ in range(GROUP)]
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


def _response(draw: random.Random) -> tuple[int, ...]:
    length = 1
    while length < LONGEST and draw.random() > 1 / 32:
        length += 1
    return tuple(draw.randrange(5, VOCABULARY - len(EOS)) for _ in range(length))


_WAYS: dict[str, Callable[[nn.Module, PaddedBatch], States]] = {"apart": read_padded, "together": read}


def together_once() -> None:
    """For a process of its own."""
    inputs = Inputs()
    from_here()
    inputs.gradients("together")


def apart_once() -> None:
    """For a process of its own."""
    inputs = Inputs()
    from_here()
    inputs.gradients("apart")


def main() -> None:
    given = arguments("A policy's gradients behind shared prompts.", pairs=5)
    inputs = Inputs()
    gap = max(
        ((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)).item()
        for mine, theirs in zip(inputs.gradients("together"), inputs.gradients("apart"), strict=True)
    )
    assert gap < 1e-4, f"the two ways' gradients differ by {gap:.1e} of a tensor's largest"
    print(f"both ways have the same gradients within {gap:.1e} of each tensor's largest")
    name = "gradients of group shapes behind shared prompts, 15.7M"
    record(
        timed(
            name,
            lambda: clock(lambda: inputs.gradients("together")),
            lambda: clock(lambda: inputs.gradients("apart")),
            given.pairs,
        ),
        peak_memory(f"{name}, memory", together_once, apart_once),
    )


if __name__ == "__main__":
    main()
