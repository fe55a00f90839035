"""Makes transformers' `generate` draw the completions that our engine drew: the same work for what comes after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.ours import Drawn


def force(model: Any, steps: Sequence[Drawn], ends: Sequence[int], pad: int = 0) -> None:
    """From now on, each call of `model.generate` draws the next step's completions, whatever the order of its rows.

    The model's forward passes, the softmax and the drawing itself still happen; only the outcome is replaced. Rows
    that have drawn one of `ends` are done, as `generate` sees it.
    """
    generate, remaining = model.generate, iter(steps)

    def forced(**given: Any) -> Any:
        target_BT = _targets(given["input_ids"], given["attention_mask"], next(remaining))
        given["generation_config"].eos_token_id = list(ends)
        given["generation_config"].pad_token_id = pad
        with _drawn_instead(target_BT):
            return generate(**given)

    model.generate = forced


def _targets(ids_BL: Tensor, attention_BL: Tensor, drawn: Drawn) -> Tensor:
    """[B, T] the tokens of each row's completion, 0 behind its end. A prompt's completions go to its rows in turn."""
    waiting = defaultdict(list)
    for prompt, completion in drawn:
        waiting[prompt].append(completion)
    rows = []
    for ids_L, attention_L in zip(ids_BL, attention_BL.bool(), strict=True):
        rows.append(waiting[tuple(ids_L[attention_L].tolist())].pop(0))
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


@contextmanager
def _drawn_instead(target_BT: Tensor) -> Iterator[None]:
    multinomial, position = torch.multinomial, iter(range(target_BT.shape[1]))

    def instead(probabilities_BV: Tensor, *, num_samples: int) -> Tensor:
        multinomial(probabilities_BV, num_samples=num_samples)
        at = next(position)
        return target_BT[:, at : at + 1].to(probabilities_BV.device)

    with patch("torch.multinomial", instead):
        yield
