"""Where the keys and values of the samples in flight live, all of them ending at the same column.

columns   0 .. first ................ end
row 0     .    prompt prompt token token       a row starts where its own prompt starts: what stands before
row 1     .    .      .      prompt token      it belongs to others, and no query ever sees it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class Pool(Protocol):
    """Keys and values of at most `slots` samples.

    Attributes:
        cache: what the model reads and extends.
        slots: how many samples fit at once.
        joinable: whether samples may enter while others are in flight.
        first: the first column that any sample needs.
        end: one past the last column; the next token's keys and values go there.
    """

    cache: Cache
    slots: int
    joinable: bool
    first: int
    end: int

    def enter(self, prompts: DynamicCache, source_N: Tensor) -> None:
        """N samples more: sample n starts as a copy of prompt `source_N[n]`, ending at `end`."""
        ...

    def extended(self, first: int) -> None:
        """The model has written a column more; from now on no sample needs what stands before `first`."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Only these samples, in this order. A row is never kept behind its old place."""
        ...


class SlotPool:
    """Memory set aside once: a token is written where it stays, a sample leaves or enters without moving the others.

    Serves models whose layers all attend to everything (or within a window that no sample outgrows).
    """

    joinable = True

    def __init__(self, slots: int, columns: int, widest: int) -> None:
        """`columns` a slot has room for; `widest` of them is the longest prompt that will enter."""
        self.slots, self.first, self.end = slots, widest, widest
        self.columns, self._widest, self._rows = columns, widest, 0
        self._layers: list[_SlotLayer] = []

    def enter(self, prompts: DynamicCache, source_N: Tensor) -> None:
        """See `Pool`."""
        if not self._layers:
            self._layers = [_SlotLayer(self, *_contents(layer)) for layer in prompts.layers]
            self.cache: Cache = Cache(layers=list(self._layers))
        width = prompts.get_seq_length()
        new, at = slice(self._rows, self._rows + len(source_N)), slice(self.end - width, self.end)
        for layer, prompt in zip(self._layers, prompts.layers, strict=True):
            keys, values = _contents(prompt)
            layer.all_keys[new, :, at] = keys.index_select(0, source_N).to(layer.all_keys.dtype)
            layer.all_values[new, :, at] = values.index_select(0, source_N).to(layer.all_values.dtype)
        self._rows += len(source_N)
        self.first = min(self.first, self.end - width)

    def extended(self, first: int) -> None:
        """See `Pool`. At the last column, all samples move to the left as far as they can."""
        self.first, self.end = first, self.end + 1
        if self.end == self.columns:
            self._move_left()

    def keep(self, rows: Sequence[int]) -> None:
        """See `Pool`. Only rows that change their place are copied."""
        moved = [(old, new) for new, old in enumerate(rows) if old != new]
        self._rows = len(rows)
        if not moved:
            return
        old_M, new_M = torch.tensor(moved, device=self._layers[0].all_keys.device).unbind(1)
        needed = slice(self.first, self.end)
        for layer in self._layers:
            for tensor in (layer.all_keys, layer.all_values):
                tensor[new_M, :, needed] = tensor[old_M, :, needed]

    @property
    def filled(self) -> tuple[slice, slice, slice]:
        """Rows, heads and columns that hold something some sample needs."""
        return slice(0, self._rows), slice(None), slice(self.first, self.end)

    def _move_left(self) -> None:
        end = max(self.end - self.first, self._widest)
        start = end - (self.end - self.first)
        for layer in self._layers:
            for tensor in (layer.all_keys, layer.all_values):
                tensor[: self._rows, :, start:end] = tensor[self.filled].clone()
        self.first, self.end = start, end


class _SlotLayer(DynamicLayer):
    """One layer's part of a `SlotPool`; only decoding steps of one token write to it."""

    def __init__(self, pool: SlotPool, keys: Tensor, values: Tensor) -> None:
        """`keys`, `values`: [P, H, L, D] of this layer for some prompts, whose shapes and types are taken over."""
        super().__init__()
        self._pool, self.is_initialized = pool, True
        self.all_keys, self.all_values = self._room(keys), self._room(values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Everything up to the new column, [R, H, columns, D]: views, no copies."""
        rows, heads, columns = self._pool.filled
        self.all_keys[rows, :, self._pool.end] = key_states[:, :, 0].to(self.all_keys.dtype)
        self.all_values[rows, :, self._pool.end] = value_states[:, :, 0].to(self.all_values.dtype)
        grown = (rows, heads, slice(columns.start, columns.stop + 1))
        return self.all_keys[grown], self.all_values[grown]

    def get_seq_length(self) -> int:
        return self._pool.end - self._pool.first

    def _room(self, like: Tensor) -> Tensor:
        device = like.device.type
        # Attention would cast to autocast's type at every step: cast once, when written.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype
        _, heads, _, width = like.shape
        # Zeros: what no sample has written is masked, but must not be a NaN.
        return torch.zeros((self._pool.slots, heads, self._pool.columns, width), dtype=dtype, device=like.device)


class WholePool:
    """The model's own kind of cache, for layers with a memory of their own kind: sliding windows, recurrent states.

    It grows by copying, and samples enter together only: when all have left, the next ones may come.
    """

    joinable = False

    def __init__(self, slots: int) -> None:
        self.slots, self.first, self.end = slots, 0, 0

    def enter(self, prompts: DynamicCache, source_N: Tensor) -> None:
        """See `Pool`."""
        self.cache: Cache = prompts
        self.end = prompts.get_seq_length()
        self._reorder(source_N)

    def extended(self, first: int) -> None:  # noqa: ARG002 (one signature for all pools)
        """See `Pool`. All columns stay: a window counts from the first."""
        self.end += 1

    def keep(self, rows: Sequence[int]) -> None:
        """See `Pool`."""
        self._reorder(torch.tensor(rows, dtype=torch.long))

    def _reorder(self, index: Any) -> None:
        self.cache.reorder_cache(index)  # whose annotation knows no plain Tensor


def _contents(layer: object) -> tuple[Tensor, Tensor]:
    """Keys and values [P, H, L, D] of a layer that has read something."""
    assert isinstance(layer, DynamicLayer), "serves_slots sees to it"
    assert layer.keys is not None, "the model has read the prompts"
    assert layer.values is not None, "the model has read the prompts"
    return layer.keys, layer.values


def serves_slots(config: PreTrainedConfig, columns: int) -> bool:
    """Whether each layer's keys and values of all tokens are all that it remembers, for samples of this length."""
    return all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window > columns)
        for layer in DynamicCache(config=config).layers
    )
