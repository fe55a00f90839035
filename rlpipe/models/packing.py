"""A padded batch without its padding: one row of tokens, every different prompt once with all its responses behind it.

    tokens     p p p a a a b b   q q c        prompt p with responses a and b, prompt q with response c
    position   0 1 2 3 4 5 3 4   0 1 2        each response goes on where its prompt ends
    b sees     x x x . . . x x   . . .        (its second token) its prompt and itself, never a sibling

A prompt with its responses is a tree: one trunk, some branches. Linear layers read the row as it is; attention reads
trees, those of like size together, padded to the longest of them (a bucket), with a mask that hides siblings from each
other. With long branches that would be most of all pairs: such a tree is unfolded, and attention reads each branch
behind a copy of its prompt's keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from rlpipe.types import PaddedBatch

# A call of attention costs about as much as this many pairs of a query and a key, forward and backward: trees share
# one where padding them to the same size adds no more.
_CALL = 128 * 128
# A tree is unfolded where that saves as many calls: copies of a prompt are not free either.
_WORTH_UNFOLDING = 16


@dataclass(frozen=True)
class Columns:
    """M tokens that stand side by side in the row, as attention gets them: in K rows of L columns.

    Attributes:
        shape: K, L.
        home_M: [M] int64, where in the columns, laid out in one row, each token stands; None where nothing is padded.
        tokens: M.
    """

    shape: tuple[int, int]
    home_M: Tensor | None
    tokens: int


@dataclass(frozen=True)
class Bucket(Columns):
    """Some trees: K of them, each padded to L columns, `trunk` of them for the prompt, and to the right of these its
    branches.

    Attributes:
        trunk: columns; L where no tree branches, and then every token sees what stands before it.
        seen_KRL: [K, L - trunk, L] bool, what the branches' tokens see; None where no tree branches.
    """

    trunk: int
    seen_KRL: Tensor | None


@dataclass(frozen=True)
class Unfolded:
    """One tree: every branch sees its prompt, all of it, and what stands before in the branch itself.

    Attributes:
        trunk: tokens of the prompt.
        branches: behind it, those of like length together: K branches padded to L columns.
    """

    trunk: int
    branches: tuple[Columns, ...]

    @property
    def tokens(self) -> int:
        """All of the tree's."""
        return self.trunk + sum(columns.tokens for columns in self.branches)


@dataclass(frozen=True)
class Packing:
    """N real tokens.

    Attributes:
        ids_N, position_N: [N] int64.
        trees: in the order of the row.
        read_M: [M] int64, ascending: where in the row the tokens stand whose states are read.
        at_BS: [B, T + 1] int64: which of these is the token before each response token of the padded batch, and after
            the last one that one itself; 0 beyond.
    """

    ids_N: Tensor
    position_N: Tensor
    trees: tuple[Bucket | Unfolded, ...]
    read_M: Tensor
    at_BS: Tensor


@dataclass
class _Tree:
    """A prompt and the rows of the batch that answer it."""

    prompt: tuple[int, ...]
    rows: list[int]
    responses: list[list[int]]

    def branched(self) -> int:
        """Tokens to the right of the trunk: one response alone is part of the trunk."""
        return sum(map(len, self.responses)) if len(self.rows) > 1 else 0

    def size(self) -> tuple[int, int]:
        """Tokens of the trunk and of the branches."""
        branched = self.branched()
        return len(self.prompt) + (0 if branched else sum(map(len, self.responses))), branched

    def longest_first(self) -> _Tree:
        """The same with its responses in this order."""
        order = sorted(range(len(self.rows)), key=lambda number: -len(self.responses[number]))
        return _Tree(self.prompt, [self.rows[i] for i in order], [self.responses[i] for i in order])


def pack(batch: PaddedBatch) -> Packing:
    """Lay `batch` out. Rows whose prompts have the same tokens share one."""
    folded, unfolded = list[_Tree](), list[_Tree]()
    for tree in _trees(batch):
        if _unfolds(tree):
            unfolded.append(tree.longest_first())
        else:
            folded.append(tree)
    buckets, device = _bucketed(folded), batch.ids_BL.device
    ids: list[int] = []
    position: list[int] = []
    before: list[list[int]] = [[]] * len(batch)
    for tree in (*chain(*buckets), *unfolded):
        start, length = len(ids), len(tree.prompt)
        ids += tree.prompt
        position += range(length)
        for row, response in zip(tree.rows, tree.responses, strict=True):
            before[row] = [start + length - 1, *range(len(ids), len(ids) + len(response))]
            ids += response
            position += range(length, length + len(response))
    read = sorted({place for at in before for place in at})
    number = {place: i for i, place in enumerate(read)}
    width = batch.response_ids_BT.shape[1] + 1
    at_BS = torch.tensor([[number[place] for place in at] + [0] * (width - len(at)) for at in before], device=device)
    return Packing(
        torch.tensor(ids, device=device),
        torch.tensor(position, device=device),
        (*(_bucket(together, device) for together in buckets), *(_unfolded(tree, device) for tree in unfolded)),
        torch.tensor(read, device=device),
        at_BS,
    )


def _trees(batch: PaddedBatch) -> list[_Tree]:
    responses, counts = batch.response_ids_BT.tolist(), batch.response_mask_BT.sum(1).tolist()
    return [
        _Tree(prompt, rows, [responses[row][: counts[row]] for row in rows])
        for prompt, rows in batch.by_prompt().items()
    ]


def _bucketed(trees: Sequence[_Tree]) -> list[list[_Tree]]:
    """The trees by size, the largest first; those that share a call side by side."""
    buckets: list[list[_Tree]] = []
    widest = (0, 0)
    for tree in sorted(trees, key=lambda tree: (tree.branched() == 0, *(-tokens for tokens in tree.size()))):
        trunk, branches = tree.size()
        wider = max(widest[0], trunk), max(widest[1], branches)
        same_kind = buckets and (branches == 0) == (widest[1] == 0)
        if same_kind:
            together = _pairs(*wider) * (len(buckets[-1]) + 1) - _pairs(*widest) * len(buckets[-1])
            if together <= _pairs(trunk, branches) + _CALL:
                buckets[-1].append(tree)
                widest = wider
                continue
        buckets.append([tree])
        widest = trunk, branches
    return buckets


def _pairs(trunk: int, branches: int) -> int:
    """Pairs of a query and a key that attention looks at in a tree."""
    return trunk * trunk // 2 + branches * (trunk + branches)


def _unfolds(tree: _Tree) -> bool:
    """Whether attention has less to do when each branch stands behind a copy of the prompt."""
    trunk, branches = tree.size()
    apart = [len(together) * _row_pairs(trunk, together[0]) + _CALL for together in _of_like_length(tree)]
    return branches > 0 and branches * (trunk + branches) - sum(apart) > _WORTH_UNFOLDING * _CALL


def _of_like_length(tree: _Tree) -> list[list[int]]:
    """The lengths of a tree's responses, the longest first, those together that share a call."""
    trunk, groups = len(tree.prompt), list[list[int]]()
    for length in sorted(map(len, tree.responses), reverse=True):
        if groups and _row_pairs(trunk, groups[-1][0]) - _row_pairs(trunk, length) <= _CALL:
            groups[-1].append(length)
        else:
            groups.append([length])
    return groups


def _row_pairs(trunk: int, length: int) -> int:
    """Pairs of a query and a key of a branch behind its own copy of the prompt."""
    return length * (trunk + length)


def _unfolded(tree: _Tree, device: torch.device) -> Unfolded:
    """Of a tree whose responses stand in the row the longest first."""
    branches = []
    for lengths in _of_like_length(tree):
        shape = len(lengths), lengths[0]
        home = [number * shape[1] + place for number, length in enumerate(lengths) for place in range(length)]
        branches.append(_columns(shape, home, device))
    return Unfolded(len(tree.prompt), tuple(branches))


def _columns(shape: tuple[int, int], home: Sequence[int], device: torch.device) -> Columns:
    padded = len(home) < shape[0] * shape[1]
    return Columns(shape, torch.tensor(home, device=device) if padded else None, len(home))


def _bucket(trees: Sequence[_Tree], device: torch.device) -> Bucket:
    sizes = [tree.size() for tree in trees]
    trunk, branches = (max(side) for side in zip(*sizes, strict=True))
    length, home = trunk + branches, list[int]()
    for number, (own_trunk, own_branches) in enumerate(sizes):
        home += range(number * length, number * length + own_trunk)
        home += range(number * length + trunk, number * length + trunk + own_branches)
    columns = _columns((len(trees), length), home, device)
    return Bucket(
        columns.shape,
        columns.home_M,
        columns.tokens,
        trunk,
        _seen(trees, trunk, branches).to(device) if branches else None,
    )


def _seen(trees: Sequence[_Tree], trunk: int, branches: int) -> Tensor:
    """[K, R, L]: a branch's token sees its prompt and what stands before it in its own branch; padding sees itself."""
    branch_KR = torch.full((len(trees), branches), -1)
    length_K11 = torch.tensor([len(tree.prompt) for tree in trees]).view(-1, 1, 1)
    for number, tree in enumerate(trees):
        numbers = torch.arange(len(tree.responses))
        own_R = numbers.repeat_interleave(torch.tensor([len(response) for response in tree.responses]))
        branch_KR[number, : len(own_R)] = own_R
    of_trunk_KRP = (torch.arange(trunk) < length_K11).expand(-1, branches, -1)
    of_branch_KRR = (branch_KR.unsqueeze(2) == branch_KR.unsqueeze(1)).tril()
    return torch.cat([of_trunk_KRP, of_branch_KRR], dim=2)
