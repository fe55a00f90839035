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


@dataclass(frozen=True)
class Prompts:
    """P prompts, padded on the left to the longest.

    Attributes:
        ids_PL: [P, L] int64.
        length_P: [P] int64, tokens that are no padding.
    """

    ids_PL: Tensor
    length_P: Tensor


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


def padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> Prompts:
    """The prompts as one tensor."""
    width = max(map(len, prompts))
    ids_PL = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    return Prompts(ids_PL, torch.tensor([len(prompt) for prompt in prompts], device=device))


def prefill(model: nn.Module, prompts: Prompts, cache: Cache) -> Tensor:
    """[P, V] logits after each prompt; `cache` then holds the prompts' keys and values."""
    width = prompts.ids_PL.shape[1]
    missing_P1 = (width - prompts.length_P).unsqueeze(1)
    place_PL = torch.arange(width, device=missing_P1.device) - missing_P1
    output = model(
        input_ids=prompts.ids_PL,
        attention_mask=(place_PL >= 0).long(),
        position_ids=place_PL.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits_PV: Tensor = output.logits[:, -1]
    return logits_PV
