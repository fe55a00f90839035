"""Generation alone: the transformers engine against transformers' own `generate`.

    python -m benchmarks.generation

Both sample 8 prompts of 256 tokens 8 times each. Here `generate` is made to draw the very tokens that our engine draws:
the same work, and a proof that both models computed the same. The time of that is not counted as its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel

from benchmarks.pairs import clock, record, timed
from benchmarks.shapes import EOS, GROUP, LONGEST, arguments, gsm8k_prompts, model_16m
from rlpipe.rollout.draw import draw
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.rollout.streams import keys, uniforms
from rlpipe.types import Completion, Request, Sampling

CPU = torch.device("cpu")
SAMPLING = Sampling(temperature=1.0, max_new_tokens=LONGEST)


class OurDraws:
    """Leaves one token possible: the one that our engine draws at this place. Counts its own time."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._keys_B, self._position, self.seconds = keys([r.stream for r in requests], CPU), 0, 0.0

    def __call__(self, _: Tensor, logits_BV: Tensor) -> Tensor:
        began = time.perf_counter()
        token_B, _ = draw(logits_BV, uniforms(self._keys_B, self._position), SAMPLING)
        self._position += 1
        only_BV = torch.full_like(logits_BV, -torch.inf).scatter(1, token_B.unsqueeze(1), 0.0)
        self.seconds += time.perf_counter() - began
        return only_BV


def generated(model: PreTrainedModel, requests: Sequence[Request]) -> tuple[float, list[tuple[int, ...]]]:
    """`generate`'s seconds, and its completions up to their end."""
    ids_BL, draws = torch.tensor([request.prompt_ids for request in requests]), OurDraws(requests)
    began = time.perf_counter()
    output_BL = model.generate(
        ids_BL,
        attention_mask=torch.ones_like(ids_BL),
        do_sample=True,
        top_k=0,
        max_new_tokens=LONGEST,
        eos_token_id=sorted(EOS),
        pad_token_id=0,
        logits_processor=LogitsProcessorList([draws]),
    )
    seconds = time.perf_counter() - began - draws.seconds
    return seconds, [_until_end(row) for row in output_BL[:, ids_BL.shape[1] :].tolist()]


def _until_end(ids: list[int]) -> tuple[int, ...]:
    end = next((place for place, token in enumerate(ids) if token in EOS), len(ids) - 1)
    return tuple(ids[: end + 1])


def main() -> None:
    given = arguments("Generation against transformers' own.", pairs=5)
    model = model_16m()
    requests = [Request(p, (0, 0, i, s)) for i, p in enumerate(gsm8k_prompts()) for s in range(GROUP)]
    engine = TransformersEngine(model, EOS, CPU, len(requests))
    drawn: list[Completion] = engine.generate(requests, SAMPLING)
    assert [c.ids for c in drawn] == generated(model, requests)[1], "the two sides draw different tokens"
    tokens = sum(len(c.ids) for c in drawn)
    print(f"both drew the same {tokens} tokens, in the mean {tokens / len(drawn):.1f} a completion")
    record(
        timed(
            "generation, 15.7M, group shapes",
            lambda: clock(lambda: engine.generate(requests, SAMPLING)),
            lambda: generated(model, requests)[0],
            given.pairs,
        )
    )


if __name__ == "__main__":
    main()
