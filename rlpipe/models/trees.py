"""Attention in a packed row: tree by tree, as its packing says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rlpipe.models.packing import Bucket, Columns, Packing, Unfolded
from rlpipe.ops.rows import fetched

# [M, heads, D] queries, [M, key heads, D] keys and values of M tokens.
_Sides = tuple[Tensor, Tensor, Tensor]


def attention_of(
    packing: Packing,
    query_NHD: Tensor,
    key_NHD: Tensor,
    value_NHD: Tensor,
    *,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """[N, heads, D] what each token attends to: its prompt and what stands before it in its own response.

    Args:
        query_NHD: [N, heads, D], carries grad.
        key_NHD, value_NHD: [N, key heads, D], carry grad.
        scale: of the products; None is one over the square root of D.
        dropout: probability.
    """
    copies = query_NHD.shape[1] // key_NHD.shape[1]
    if copies > 1 and query_NHD.device.type == "cuda":
        # With a mask, CUDA's fast kernels want a head of keys for every head of queries.
        key_NHD, value_NHD = (side.repeat_interleave(copies, 1) for side in (key_NHD, value_NHD))
        copies = 1
    options: dict[str, Any] = {"scale": scale, "dropout_p": dropout, "enable_gqa": copies > 1}
    counts = [trees.tokens for trees in packing.trees]
    of_trees = zip(*(side.split(counts) for side in (query_NHD, key_NHD, value_NHD)), strict=True)
    return torch.cat([_of(trees, sides, options) for trees, sides in zip(packing.trees, of_trees, strict=True)])


def _of(trees: Bucket | Unfolded, sides: _Sides, options: dict[str, Any]) -> Tensor:
    """[M, heads, D]."""
    return _of_unfolded(trees, sides, options) if isinstance(trees, Unfolded) else _of_bucket(trees, sides, options)


def _of_bucket(bucket: Bucket, sides: _Sides, options: dict[str, Any]) -> Tensor:
    query, key, value = (_placed(side, bucket) for side in sides)
    trunk = bucket.trunk
    if bucket.seen_KRL is None:
        seen = scaled_dot_product_attention(query, key, value, is_causal=True, **options)
    else:
        # On the way back the parts of a split are put side by side, where two slices would be filled up and added.
        of_trunk, of_branches = query.split([trunk, bucket.shape[1] - trunk], dim=2)
        hidden_K1RL = _as_scores(~bucket.seen_KRL, query).unsqueeze(1)
        seen = torch.cat(
            [
                scaled_dot_product_attention(
                    of_trunk, key[:, :, :trunk], value[:, :, :trunk], is_causal=True, **options
                ),
                scaled_dot_product_attention(of_branches, key, value, attn_mask=hidden_K1RL, **options),
            ],
            dim=2,
        )
    return _taken(seen, bucket)


def _of_unfolded(tree: Unfolded, sides: _Sides, options: dict[str, Any]) -> Tensor:
    prompt = Columns((1, tree.trunk), None, tree.trunk)
    parts = [side.split([tree.trunk, *(columns.tokens for columns in tree.branches)]) for side in sides]
    of_prompt, *of_branches = zip(*parts, strict=True)
    query, key, value = (_placed(side, prompt) for side in of_prompt)
    out = [_taken(scaled_dot_product_attention(query, key, value, is_causal=True, **options), prompt)]
    for columns, of_columns in zip(tree.branches, of_branches, strict=True):
        rows, length = columns.shape
        own_query, own_key, own_value = (_placed(side, columns) for side in of_columns)
        # What fills up the shorter branches stands behind all of their tokens.
        after_TL = torch.ones(length, tree.trunk + length, dtype=torch.bool, device=query.device).triu(tree.trunk + 1)
        seen = scaled_dot_product_attention(
            own_query,
            torch.cat([key.expand(rows, -1, -1, -1), own_key], 2),
            torch.cat([value.expand(rows, -1, -1, -1), own_value], 2),
            attn_mask=_as_scores(after_TL, query),
            **options,
        )
        out.append(_taken(seen, columns))
    return torch.cat(out)


def _as_scores(hidden: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(1, dtype=like.dtype, device=like.device).masked_fill(hidden, -torch.inf)


def _placed(side_MHD: Tensor, columns: Columns) -> Tensor:
    """[K, heads, L, D] the tokens in their columns, zeros in the others."""
    if columns.home_M is not None:
        rows = side_MHD.new_zeros((columns.shape[0] * columns.shape[1], *side_MHD.shape[1:]))
        side_MHD = rows.index_copy(0, columns.home_M, side_MHD)
    return side_MHD.unflatten(0, columns.shape).transpose(1, 2)


def _taken(seen: Tensor, columns: Columns) -> Tensor:
    """[M, heads, D] the tokens out of [K, heads, L, D] columns."""
    rows = seen.transpose(1, 2).flatten(0, 1)
    return rows if columns.home_M is None else fetched(rows, columns.home_M)
