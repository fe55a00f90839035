"""Attention of decoding steps on a CPU, for models in which several heads of queries share one of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "rlpipe_grouped"


@contextmanager
def grouped_heads(config: Any) -> Iterator[None]:
    """Within, a model that uses `sdpa` reads shared keys and values as they are.

    transformers copies them once for every head of queries where there is a mask, because CUDA's kernels want it so. A
    decoding step reads all keys and values of all samples; on a CPU those copies took four fifths of its attention.
    """
    own = config._attn_implementation
    if own == "sdpa":
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = own


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    shared = key.shape[1] < query.shape[1] and key.shape[-1] == value.shape[-1]
    if query.device.type != "cpu" or attention_mask is None or not shared or others.get("position_bias") is not None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return output, None
    seen = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return seen.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
