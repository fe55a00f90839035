"""Reading a packed batch through any decoder of transformers whose attention can be told what to look at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache, DynamicLayer

from rlpipe.errors import ModelError
from rlpipe.models.attention import attention_as
from rlpipe.models.decoder import as_in_evaluation
from rlpipe.models.narrow import narrow, widen
from rlpipe.models.packing import Packing, pack
from rlpipe.models.recompute import recomputing
from rlpipe.models.trees import attention_of
from rlpipe.ops.products import wide
from rlpipe.ops.rows import fetched
from rlpipe.types import PaddedBatch

_log = logging.getLogger(__name__)

_NAME = "rlpipe_packed"
# What else a model may tell its attention without changing what attention computes.
_HARMLESS = frozenset({"position_ids", "use_cache", "is_causal", "output_attentions", "output_hidden_states"})
# How far apart (in units of the largest hidden state) the two ways to read may be: rounding of the type, and some more.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# The same for the same way with fewer rows: rounding alone.
_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
# What a model's class does with packed rows does not change while it lives: looked at once.
_packs: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def packed_states(decoder: nn.Module, packing: Packing) -> Tensor:
    """[M, H] the decoder's last hidden state at each token that is read. `packs(decoder)` says whether it can."""
    with attention_as(decoder.config, _NAME), recomputing(decoder):
        output = decoder(
            input_ids=packing.ids_N.unsqueeze(0),
            position_ids=packing.position_N.unsqueeze(0),
            # Our attention reads the packing, not a mask; one with four dimensions is handed on as it is, not built.
            attention_mask=packing.ids_N.new_empty((1, 1, 1, 0)),
            use_cache=False,
            packing=packing,
        )
    states: Tensor = output.last_hidden_state[0]
    # A narrow decoder has made no others.
    return states if len(states) == len(packing.read_M) else fetched(states, packing.read_M)


def packs(decoder: nn.Module) -> bool:
    """Whether the decoder reads packed rows as it reads padded ones; said once, if not.

    It must attend to all that stands before a token (no sliding windows, no recurrent states), take positions from its
    caller and hand `packing` on to its attention. That is tried out on a few tokens, not believed.
    """
    if decoder not in _packs:
        _packs[decoder] = _attends_to_all(decoder) and _agrees(decoder)
        if _packs[decoder]:
            _narrow_if_same(decoder)
        if not _packs[decoder]:
            _log.warning("%s cannot read packed rows: batches are padded, prompts repeated.", type(decoder).__name__)
    return _packs[decoder]


def padded_states(decoder: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B, L, H] the decoder's last hidden state, read the plain way."""
    with recomputing(decoder):
        output = decoder(
            input_ids=batch.ids_BL,
            attention_mask=batch.attention_BL.long(),
            position_ids=batch.position_BL,
            use_cache=False,
        )
    states_BLH: Tensor = output.last_hidden_state
    return states_BLH


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the packing says what is seen
    *,
    packing: Packing,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: [1, heads, N, D] -> [1, N, heads, D].

    Raises: ModelError for a layer that asks for more than scaled dot products.
    """
    asked = sorted(name for name, given in others.items() if given is not None and name not in _HARMLESS)
    if sliding_window is not None or asked:
        raise ModelError(f"{type(module).__name__} asks its attention for {asked or 'a sliding window'}.")
    sides = (wide(side)[0].transpose(0, 1) for side in (query, key, value))
    seen_NHD = attention_of(packing, *sides, scale=scaling, dropout=dropout)
    return seen_NHD.unsqueeze(0).to(query.dtype), None


AttentionInterface.register(_NAME, _attention)


def _attends_to_all(decoder: nn.Module) -> bool:
    config: Any = decoder.config
    return config._attn_implementation in ("sdpa", "eager") and all(
        type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers
    )


@torch.no_grad()
def _agrees(decoder: nn.Module) -> bool:
    """Whether two responses to one prompt, and one to another, have the hidden states that they have when padded."""
    batch = _three_rows(next(decoder.parameters()).device)
    packing = pack(batch)
    with as_in_evaluation(decoder), torch.autocast(batch.ids_BL.device.type, enabled=False):
        padded_BLH = padded_states(decoder, batch)
        try:
            packed_MH = packed_states(decoder, packing)
        except Exception as error:  # whatever a model raises that is not made for it
            _log.info("%s: %s", type(decoder).__name__, error)
            return False
    return _near(packed_MH[packing.at_BS], padded_BLH[:, 1:], _TOLERANCE)


@torch.no_grad()
def _narrow_if_same(decoder: nn.Module) -> None:
    """`narrow` a decoder for good, where that changes no hidden state by more than rounding."""
    packing = pack(_three_rows(next(decoder.parameters()).device))
    with as_in_evaluation(decoder), torch.autocast(packing.ids_N.device.type, enabled=False):
        wide_MH = packed_states(decoder, packing)
        if not narrow(decoder):
            return
        try:
            same = _near(packed_states(decoder, packing), wide_MH, _ROUNDING)
        except Exception as error:  # whatever a layer raises that is put together in another way
            _log.info("%s: %s", type(decoder).__name__, error)
            same = False
    if not same:
        widen(decoder)


def _three_rows(device: torch.device) -> PaddedBatch:
    ids_BL = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], device=device)
    real_BL = torch.ones_like(ids_BL, dtype=torch.bool)
    return PaddedBatch(ids_BL, real_BL, torch.arange(4, device=device).expand(3, 4), ids_BL[:, 2:], real_BL[:, 2:])


def _near(states: Tensor, expected: Tensor, tolerance: Mapping[torch.dtype, float]) -> bool:
    gap = (states - expected).abs().max().item()
    return gap <= tolerance[expected.dtype] * expected.abs().max().item()
