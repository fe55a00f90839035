"""Where the keys and values of the samples in flight live, all of them ending at the same column.

columns   0 .. first ................ end
row 0     .    prompt prompt token token       a row starts where its own prompt starts: what stands before
row 1     .    .      .      prompt token      it belongs to others, and no query ever sees it
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class Holding(Protocol):
    """Keys and values of at most `slots` samples."""

    slots: int

    def enter(self, prompts: DynamicCache, length_P: Tensor, source_N: Tensor) -> None:
        """N samples more, sample n behind prompt `source_N[n]`; prompts have `length_P` tokens, padded on the left."""
        ...

    def extended(self) -> None:
        """All layers have written a column more."""
        ...

    def keep(self, row_R: Tensor) -> None:
        """Only these samples, in this order. A row is never kept behind its old place."""
        ...


class Pool(Holding, Protocol):
    """A holding of samples whose attention is the model's.

    Attributes:
        cache: what the model reads and extends.
        joinable: whether samples may enter while others are in flight.
    """

    cache: Cache
    joinable: bool

    def seen(self) -> Tensor:
        """[R, columns] bool: what the next token of each sample sees, its own column included."""
        ...


# What queries do not see, to be added to their scores, for each kind of keys; None where they see all.
Hidden = tuple[Tensor | None, ...]


class Attending(Holding, Protocol):
    """A holding of samples whose attention is ours, not the model's: R samples, K heads of keys and values."""

    def hidden(self) -> Hidden:
        """What the samples' next tokens do not see: the same in all layers."""
        ...

    def attend(self, layer: int, query_RND: Tensor, key_RKD: Tensor, value_RKD: Tensor, hidden: Hidden) -> Tensor:
        """[R, heads, D] what each sample's next token attends to, its own key and value written down."""
        ...


class Columns:
    """Where each sample starts, in columns that all samples end at.

    Attributes:
        count: all columns.
        first: the first column that any sample needs.
        end: one past the last column; the next token's keys and values go there.
        start_R: [R] int64, the column where each sample starts.
    """

    def __init__(self, end: int, count: int) -> None:
        """`count` columns; the samples to come end at `end`."""
        self._widest, self.count = end, count
        self.first = self.end = end
        self.start_R = torch.zeros(0, dtype=torch.long)

    def __len__(self) -> int:
        """Samples."""
        return len(self.start_R)

    @property
    def filled(self) -> slice:
        """What holds something some sample needs."""
        return slice(self.first, self.end)

    def seen(self) -> Tensor:
        """[R, columns] bool: what each sample's next token sees, its own column included."""
        column_W = torch.arange(self.first, self.end + 1, device=self.start_R.device)
        return column_W >= self.start_R.unsqueeze(1)

    def enter(self, length_N: Tensor) -> None:
        """N samples more, that long."""
        self.start_R = torch.cat([self.start_R.to(length_N.device), self.end - length_N])
        self.first = int(self.start_R.min())

    def keep(self, row_R: Tensor) -> None:
        """See `Pool`."""
        self.start_R = self.start_R[row_R.to(self.start_R.device)]

    def extended(self) -> int:
        """A column more. At the last one, all move to the left as far as they can. Returns: by how many columns."""
        self.first, self.end = int(self.start_R.min()), self.end + 1
        if self.end < self.count:
            return 0
        end = max(self.end - self.first, self._widest)
        moved = self.end - end
        self.first, self.end, self.start_R = self.first - moved, end, self.start_R - moved
        return moved


class Slots:
    """Memory set aside once: a token is written where it stays, a sample leaves or enters without moving the others.

    Attributes:
        layers: [slots, heads, columns, width] keys and values of each layer.
    """

    def __init__(self, like: DynamicCache, slots: int, columns: int) -> None:
        """Shapes and types of each layer are those of `like`, which has read something."""
        self.layers = [tuple(self._room(side, slots, columns) for side in contents(layer)) for layer in like.layers]

    def keep(self, row_R: Tensor, columns: slice) -> None:
        """Row n becomes what row `row_R[n]` is, in these columns. Only rows that change their place are copied."""
        new_R = torch.arange(len(row_R), device=row_R.device)
        moves_R = row_R != new_R
        if not moves_R.any():
            return
        old_M, new_M = row_R[moves_R], new_R[moves_R]
        for side in (side for layer in self.layers for side in layer):
            side[new_M, :, columns] = side[old_M, :, columns]

    def shift(self, rows: int, columns: slice, by: int) -> None:
        """Into these columns goes what stands `by` columns to the right of them."""
        for side in (side for layer in self.layers for side in layer):
            side[:rows, :, columns] = side[:rows, :, columns.start + by : columns.stop + by].clone()

    @staticmethod
    def _room(like: Tensor, slots: int, columns: int) -> Tensor:
        device = like.device.type
        # Attention would cast to autocast's type at every step: cast once, when written.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype
        _, heads, _, width = like.shape
        # Zeros: what no sample has written is masked, but must not be a NaN.
        return torch.zeros((slots, heads, columns, width), dtype=dtype, device=like.device)


class SlotPool:
    """A slot for each sample. Serves models whose layers all attend to everything (or within a window that no sample
    outgrows).
    """

    joinable = True

    def __init__(self, slots: int, columns: int, widest: int) -> None:
        """`columns` a slot has room for; `widest` of them is the longest prompt that will enter."""
        self.slots, self._count = slots, columns
        self._columns = Columns(widest, columns)
        self._memory: Slots | None = None

    def enter(self, prompts: DynamicCache, length_P: Tensor, source_N: Tensor) -> None:
        """See `Pool`."""
        if self._memory is None:
            self._memory = Slots(prompts, self.slots, self._count)
            self.cache: Cache = Cache(layers=[_SlotLayer(self._columns, *layer) for layer in self._memory.layers])
        columns, width = self._columns, prompts.get_seq_length()
        new = slice(len(columns), len(columns) + len(source_N))
        for room, layer in zip(self._memory.layers, prompts.layers, strict=True):
            for side, prompt in zip(room, contents(layer), strict=True):
                side[new, :, columns.end - width : columns.end] = prompt.index_select(0, source_N).to(side.dtype)
        columns.enter(length_P[source_N])

    def seen(self) -> Tensor:
        """See `Pool`."""
        return self._columns.seen()

    def hidden(self) -> Hidden:
        """See `Attending`."""
        return (as_scores(~self.seen()),)

    def attend(self, layer: int, query_RND: Tensor, key_RKD: Tensor, value_RKD: Tensor, hidden: Hidden) -> Tensor:
        """See `Attending`."""
        assert self._memory is not None, "something has been read"
        keys, values = (
            write(side, self._columns, new)
            for side, new in zip(self._memory.layers[layer], (key_RKD, value_RKD), strict=True)
        )
        seen_RKgD, _ = attention(query_RND.unflatten(1, (key_RKD.shape[1], -1)), keys, values, hidden[0])
        return seen_RKgD.flatten(1, 2)

    def extended(self) -> None:
        """See `Pool`."""
        assert self._memory is not None, "something has been read"
        if moved := self._columns.extended():
            self._memory.shift(len(self._columns), self._columns.filled, moved)

    def keep(self, row_R: Tensor) -> None:
        """See `Pool`."""
        assert self._memory is not None, "something has been read"
        self._columns.keep(row_R)
        self._memory.keep(row_R, self._columns.filled)


class _SlotLayer(DynamicLayer):
    """One layer's part of a `SlotPool`; only decoding steps of one token write to it."""

    def __init__(self, columns: Columns, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._columns, self.is_initialized = columns, True
        self._room = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Everything up to the new column, [R, H, columns, D]: views, no copies."""
        keys, values = (
            write(side, self._columns, new[:, :, 0])
            for side, new in zip(self._room, (key_states, value_states), strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        return self._columns.end - self._columns.first


def write(side: Tensor, columns: Columns, new_RHD: Tensor) -> Tensor:
    """[R, H, columns, D] keys or values up to the new column, which this writes."""
    rows = len(new_RHD)
    side[:rows, :, columns.end] = new_RHD.to(side.dtype)
    return side[:rows, :, columns.first : columns.end + 1]


class WholePool:
    """The model's own kind of cache, for layers with a memory of their own kind: sliding windows, recurrent states.

    It grows by copying, and samples enter together only: when all have left, the next ones may come. All columns stay:
    a window counts from the first.
    """

    joinable = False

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def enter(self, prompts: DynamicCache, length_P: Tensor, source_N: Tensor) -> None:
        """See `Pool`."""
        self.cache: Cache = prompts
        self._end, self._missing_R = prompts.get_seq_length(), (prompts.get_seq_length() - length_P)[source_N]
        self._reorder(source_N)

    def seen(self) -> Tensor:
        """See `Pool`."""
        column_W = torch.arange(self._end + 1, device=self._missing_R.device)
        return column_W >= self._missing_R.unsqueeze(1)

    def extended(self) -> None:
        """See `Pool`."""
        self._end += 1

    def keep(self, row_R: Tensor) -> None:
        """See `Pool`."""
        self._missing_R = self._missing_R[row_R.to(self._missing_R.device)]
        self._reorder(row_R)

    def _reorder(self, index: Any) -> None:
        self.cache.reorder_cache(index)  # whose annotation knows no plain Tensor


def attention(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """[B, K, Q, D] what queries attend to, in the keys' type; [B, K, Q] float32, the log-sum-exps of their scores."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    seen, weight = flash(query.to(key.dtype), key, value, attn_mask=hidden)
    return seen, weight


def as_scores(hidden: Tensor) -> Tensor | None:
    if not hidden.any():
        return None
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None, None]


def contents(layer: object) -> tuple[Tensor, Tensor]:
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
