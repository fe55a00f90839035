"""Prompts' keys and values once for all samples of a prompt, for the attention of decoding steps."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from rlpipe.rollout.pools import Columns, Hidden, Slots, as_scores, attention, contents, write


class SharedPool:
    """Keys and values: of each prompt once for all its samples, of each sample's own tokens in a slot.

    A sample attends to its prompt together with its siblings, to its own tokens alone; the two are put together by
    their log-sum-exps.

    Samples stand in any order. G is the most samples that a prompt has in flight; with K heads of keys and g queries to
    each, a prompt is read by [K, G g] queries at once.
    """

    def __init__(self, slots: int, columns: int) -> None:
        self.slots, self._columns = slots, Columns(0, columns)
        self._own: Slots | None = None
        # [P, K, L, D] keys and values of each layer, [P, L] what of them is padding, [R] whose prompt is which.
        self._prompts: list[tuple[Tensor, Tensor]] = []
        self._padding_PL = torch.zeros((0, 0), dtype=torch.bool)
        self._prompt_R = torch.zeros(0, dtype=torch.long)
        self._place()

    def enter(self, cache: DynamicCache, length_P: Tensor, source_N: Tensor) -> None:
        """N samples more, behind their prompts, which are padded on the left."""
        if self._own is None:
            self._own = Slots(cache, self.slots, self._columns.count)
            self._prompts = [(keys[:0, :, :0], values[:0, :, :0]) for keys, values in self._own.layers]
        known, width = len(self._padding_PL), cache.get_seq_length()
        padding_PL = torch.arange(width) < (width - length_P).unsqueeze(1)
        self._padding_PL = _stacked(self._padding_PL, padding_PL, 1, fill=True)
        self._prompts = [
            (_stacked(keys, new_keys, 2), _stacked(values, new_values, 2))
            for (keys, values), (new_keys, new_values) in zip(self._prompts, map(contents, cache.layers), strict=True)
        ]
        self._prompt_R = torch.cat([self._prompt_R, known + source_N])
        self._columns.enter(torch.zeros_like(source_N))
        self._place()

    def keep(self, row_R: Tensor) -> None:
        """See `Steps`. Prompts without a sample are forgotten when half of all are such."""
        assert self._own is not None, "something has been read"
        self._columns.keep(row_R)
        self._own.keep(row_R, self._columns.filled)
        self._prompt_R = self._prompt_R[row_R]
        alive_P, self_R = self._prompt_R.unique(return_inverse=True)
        if 2 * len(alive_P) <= len(self._padding_PL):
            self._prompt_R, self._padding_PL = self_R, self._padding_PL[alive_P]
            self._prompts = [(keys[alive_P], values[alive_P]) for keys, values in self._prompts]
        self._place()

    def extended(self) -> None:
        """Each sample has a token more."""
        assert self._own is not None, "something has been read"
        if moved := self._columns.extended():
            self._own.shift(len(self._columns), self._columns.filled, moved)

    def hidden(self) -> Hidden:
        """What queries do not see, to be added to their scores: [P, 1, 1, L] of the prompts, [R, 1, 1, columns] of the
        samples' own tokens; None where they see everything.
        """
        return as_scores(self._padding_PL), as_scores(~self._columns.seen())

    def attend(self, layer: int, query_RND: Tensor, key_RKD: Tensor, value_RKD: Tensor, hidden: Hidden) -> Tensor:
        """[R, heads, D] what each sample's new token attends to, its own key and value written down."""
        assert self._own is not None, "something has been read"
        keys, values = (
            write(side, self._columns, new)
            for side, new in zip(self._own.layers[layer], (key_RKD, value_RKD), strict=True)
        )
        query_RKgD = query_RND.unflatten(1, (key_RKD.shape[1], -1))
        own_RKgD, own_weight_RKg = attention(query_RKgD, keys, values, hidden[1])
        together_PKQD = self._by_prompt(query_RKgD)
        prompt_PKQD, weight_PKQ = attention(together_PKQD, *self._prompts[layer], hidden[0])
        share_RKg1 = (own_weight_RKg - self._by_sample(weight_PKQ)).sigmoid_().unsqueeze(-1).to(own_RKgD.dtype)
        return self._by_sample(prompt_PKQD).lerp(own_RKgD, share_RKg1)

    def _place(self) -> None:
        """Each sample's place among the [P, G] places of its prompt's samples."""
        counts_P = torch.bincount(self._prompt_R, minlength=len(self._padding_PL))
        order_R = self._prompt_R.argsort(stable=True)
        before_P = counts_P.cumsum(0) - counts_P
        number_R = torch.empty_like(order_R)
        number_R[order_R] = torch.arange(len(order_R)) - before_P[self._prompt_R[order_R]]
        self._most = int(counts_P.max()) if len(counts_P) else 0
        self._place_R = self._prompt_R * self._most + number_R

    def _by_prompt(self, query_RKgD: Tensor) -> Tensor:
        """[P, K, G g, D]: zeros where a prompt has fewer samples than another."""
        placed = query_RKgD.new_zeros((len(self._padding_PL) * self._most, *query_RKgD.shape[1:]))
        placed[self._place_R] = query_RKgD
        return placed.unflatten(0, (-1, self._most)).transpose(1, 2).flatten(2, 3)

    def _by_sample(self, of_prompts: Tensor) -> Tensor:
        """[P, K, G g, ...] -> [R, K, g, ...]."""
        return of_prompts.unflatten(2, (self._most, -1)).transpose(1, 2).flatten(0, 1)[self._place_R]


def _stacked(old: Tensor, new: Tensor, axis: int, *, fill: bool = False) -> Tensor:
    """The rows of both in the type of the first, filled up on the left of `axis` to the longer."""
    width = max(old.shape[axis], new.shape[axis])

    def widened(side: Tensor) -> Tensor:
        missing = width - side.shape[axis]
        shape = [*side.shape[:axis], missing, *side.shape[axis + 1 :]]
        return torch.cat([side.new_full(shape, fill), side], axis) if missing else side

    return torch.cat([widened(old), widened(new.to(old.dtype))])
