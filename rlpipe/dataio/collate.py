"""From token ids to tensors: prompts padded on the left, responses on the right, one column between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlpipe.types import PaddedBatch


def collate(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int, device: torch.device | str = "cpu"
) -> PaddedBatch:
    """Pad (prompt_ids, response_ids) pairs to the longest prompt and the longest response among them.

    Masks come from the lengths, never from comparing ids with `pad_id`, so a model whose pad token is its
    end-of-sequence token keeps that token in the loss.
    """
    assert pairs, "a batch has at least one row"
    prompt_width = max(len(prompt) for prompt, _ in pairs)
    response_width = max(len(response) for _, response in pairs)
    ids, attention = [], []
    for prompt, response in pairs:
        before, after = prompt_width - len(prompt), response_width - len(response)
        ids.append([pad_id] * before + [*prompt, *response] + [pad_id] * after)
        attention.append([False] * before + [True] * (len(prompt) + len(response)) + [False] * after)
    ids_BL = torch.tensor(ids, dtype=torch.long, device=device)
    attention_BL = torch.tensor(attention, dtype=torch.bool, device=device)
    return PaddedBatch(
        ids_BL=ids_BL,
        attention_BL=attention_BL,
        position_BL=(attention_BL.long().cumsum(dim=1) - 1).clamp(min=0),
        response_ids_BT=ids_BL[:, prompt_width:],
        response_mask_BT=attention_BL[:, prompt_width:],
    )
