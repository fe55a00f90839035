"""Which requests share a prompt, and the one forward pass that each prompt costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from rlpipe.types import Request


@dataclass(frozen=True)
class Group:
    """Samples of one prompt; `members` are their places in the list of requests."""

    prompt_ids: tuple[int, ...]
    members: tuple[int, ...]


def groups_of(requests: Sequence[Request], at_most: int) -> list[Group]:
    """The requests by prompt, the longest prompts first; a group larger than `at_most` comes in parts."""
    members: dict[tuple[int, ...], list[int]] = {}
    for place, request in enumerate(requests):
        members.setdefault(request.prompt_ids, []).append(place)
    return [
        Group(prompt, tuple(places[start : start + at_most]))
        for prompt, places in sorted(members.items(), key=lambda item: -len(item[0]))
        for start in range(0, len(places), at_most)
    ]


def prefill(model: nn.Module, prompts: Sequence[tuple[int, ...]], cache: Cache, device: torch.device) -> Tensor:
    """[P, V] logits after each prompt; `cache` then holds the prompts' keys and values, padded on the left."""
    width = max(map(len, prompts))
    ids_PL = torch.zeros((len(prompts), width), dtype=torch.long)
    attention_PL = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_PL[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_PL[row, width - len(prompt) :] = 1
    output = model(
        input_ids=ids_PL.to(device),
        attention_mask=attention_PL.to(device),
        position_ids=(attention_PL.cumsum(1) - 1).clamp(min=0).to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]
