"""Training on a group of responses behind one copy of their prompt: the prompt is read once, not once a response.

columns    0 1 2     3 4 5    6 7
ids        p p p     a a a    b b       a group's prompt, then its responses one behind the other
position   0 1 2     3 4 5    3 4       each response goes on where the prompt ends
a sees     x x x     x x .    . .       (its second token) the prompt and itself, never a sibling
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from rlpipe.errors import ShapeError
from rlpipe.models.decoder import Parts, as_in_evaluation, parts_of
from rlpipe.models.forward import ResponseStats, placed, real_places, response_stats
from rlpipe.ops.head import token_stats
from rlpipe.types import PaddedBatch

_log = logging.getLogger(__name__)

# Log-probs of the two ways may differ by rounding: nats.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.3}
_PROMPT, _PADDING = 0, -1
# What a model's class does with a mask of its caller's does not change while it lives: looked at once.
_sharing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class SharedPrompts:
    """Groups of a `PaddedBatch`, one a row.

    Attributes:
        ids_GL: [G, L] int64.
        position_GL: [G, L] int64.
        segment_GL: [G, L] int64: 0 the prompt, k the group's k-th response, -1 padding.
        before_BT: [B, T] int64: where in [G, L], laid out in one row, the hidden state before each response token of
            the padded batch stands; 0 where masked.
    """

    ids_GL: Tensor
    position_GL: Tensor
    segment_GL: Tensor
    before_BT: Tensor

    def seen(self) -> Tensor:
        """[G, L, L] bool: query (middle) sees key (last): what stands before it in the prompt and in its response."""
        key_G1L, query_GL1 = self.segment_GL.unsqueeze(1), self.segment_GL.unsqueeze(2)
        return ((key_G1L == _PROMPT) | (key_G1L == query_GL1)).tril()


def shared_prompts(batch: PaddedBatch, group_B: Tensor) -> SharedPrompts:
    """Lay `batch` out by groups. Raises: ShapeError if the prompts of a group are not the same."""
    width, length = batch.prompt_width, batch.response_ids_BT.shape[1]
    prompts = [
        tuple(ids[real].tolist())
        for ids, real in zip(batch.ids_BL[:, :width], batch.attention_BL[:, :width], strict=True)
    ]
    members: dict[int, list[int]] = {}
    for row, group in enumerate(group_B.tolist()):
        members.setdefault(group, []).append(row)
    responses, lengths = batch.response_ids_BT.tolist(), batch.response_mask_BT.sum(1).tolist()
    laid, before = [], [[0] * length for _ in prompts]
    for group, rows in members.items():
        prompt = prompts[rows[0]]
        if any(prompts[row] != prompt for row in rows):
            raise ShapeError(f"group {group}: its rows have different prompts, so they cannot share one.")
        ids, position, segment = [*prompt], [*range(len(prompt))], [_PROMPT] * len(prompt)
        for number, row in enumerate(rows, start=1):
            count, at = lengths[row], len(ids)
            # The prompt's last token comes before the first of each response.
            before[row][:count] = [len(prompt) - 1, *range(at, at + count - 1)][:count]
            ids += responses[row][:count]
            position += range(len(prompt), len(prompt) + count)
            segment += [number] * count
        laid.append((ids, position, segment))
    return _padded(laid, before, list(members.values()), batch.ids_BL.device)


def stats_behind_shared_prompts(
    model: nn.Module, batch: PaddedBatch, shared: SharedPrompts, *, temperature: float
) -> ResponseStats:
    """`response_stats` of the same batch: the same numbers and gradients, from one copy of each prompt.

    `shares_prompts(model)` says whether the model can be read this way.
    """
    parts = parts_of(model)
    assert parts is not None, "ask shares_prompts first"
    hidden_BTH = _hidden(parts, shared)
    at_N = real_places(batch)
    stats = token_stats(
        hidden_BTH.flatten(0, 1).index_select(0, at_N),
        batch.response_ids_BT.flatten().index_select(0, at_N),
        parts.head,
        temperature=temperature,
    )
    return placed(stats, batch, at_N, hidden_BTH)


def shares_prompts(model: nn.Module) -> bool:
    """Whether the model takes the mask and the positions that sharing needs; said once, if not.

    It must attend to all that the mask lets it (no sliding windows, no recurrent states) and take its positions from
    its caller. The latter is tried out on a few tokens, not believed.
    """
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    if inner not in _sharing:
        _sharing[inner] = _attends_as_told(inner) and parts_of(inner) is not None and _agree(inner)
        if not _sharing[inner]:
            _log.warning(
                "%s does not take an attention mask of its caller's: prompts are read once for each response.",
                type(inner).__name__,
            )
    return _sharing[inner]


def _hidden(parts: Parts, shared: SharedPrompts) -> Tensor:
    """[B, T, H] the decoder's last hidden state before each response token."""
    dtype = parts.head.weight_VH.dtype
    # Added to the scores: 0 where seen. A bool mask would mean something else to eager attention.
    hidden_from_GLL = torch.zeros(1, dtype=dtype, device=shared.ids_GL.device).masked_fill(
        ~shared.seen(), torch.finfo(dtype).min
    )
    hidden_GLH = parts.decoder(
        input_ids=shared.ids_GL,
        attention_mask=hidden_from_GLL.unsqueeze(1),
        position_ids=shared.position_GL,
        use_cache=False,
    ).last_hidden_state
    before_BT = shared.before_BT
    return hidden_GLH.flatten(0, 1).index_select(0, before_BT.flatten()).unflatten(0, before_BT.shape)


def _padded(
    laid: list[tuple[list[int], list[int], list[int]]],
    before: list[list[int]],
    members: list[list[int]],
    device: torch.device,
) -> SharedPrompts:
    length = max(len(ids) for ids, _, _ in laid)
    filled = [
        [values + [filler] * (length - len(values)) for values, filler in zip(row, (0, 0, _PADDING), strict=True)]
        for row in laid
    ]
    ids_GL, position_GL, segment_GL = torch.tensor(filled, device=device).unbind(1)
    before_BT = torch.tensor(before, device=device)
    group_of_row = {row: group for group, rows in enumerate(members) for row in rows}
    first_B = torch.tensor([group_of_row[row] * length for row in range(len(before))], device=device)
    return SharedPrompts(ids_GL, position_GL, segment_GL, before_BT + first_B.unsqueeze(1))


def _attends_as_told(inner: Any) -> bool:
    layers = DynamicCache(config=inner.config).layers
    return inner.config._attn_implementation in ("sdpa", "eager") and all(
        type(layer) is DynamicLayer for layer in layers
    )


@torch.no_grad()
def _agree(inner: nn.Module) -> bool:
    """Whether two responses to one prompt have the log-probs that they have apart."""
    device = next(inner.parameters()).device
    ids_BL = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1]], device=device)
    seen_BL = torch.ones_like(ids_BL, dtype=torch.bool)
    position_BL = torch.arange(4, device=device).expand(2, 4)
    batch = PaddedBatch(ids_BL, seen_BL, position_BL, ids_BL[:, 2:], seen_BL[:, 2:])
    shared = shared_prompts(batch, torch.zeros(2, dtype=torch.long))
    with as_in_evaluation(inner), torch.autocast(device.type, enabled=False):
        apart = response_stats(inner, batch, temperature=1.0)
        try:
            together = stats_behind_shared_prompts(inner, batch, shared, temperature=1.0)
        except Exception as error:  # whatever a model raises that cannot work with such a mask
            _log.info("%s: %s", type(inner).__name__, error)
            return False
    gap = (apart.logp_BT - together.logp_BT).abs().max().item()
    return gap <= _TOLERANCE.get(apart.hidden_BTH.dtype, 0.3)
