"""From logits and uniforms to tokens and their log-probs, in one pass over the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlpipe.types import Sampling

# The vocabulary is summed in blocks; only the block that the draw falls in is then looked at token by token.
_BLOCK = 128
# Among how many tokens, the most likely ones, the border of top_p is looked for at first; then among how many times as
# many.
_FIRST_LOOK, _WIDER = 32, 32


def draw(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Token ids [B] and their log-probs [B] (nats, float32) by inversion of the cumulative distribution.

    Temperature 0 takes the most likely token and gives its log-prob under the model itself. With top_k, top_p or min_p
    the draw is from what they leave; the log-prob is still that in the whole distribution, which a trainer can compute.
    """
    logits_BV = logits_BV.float()
    if sampling.temperature not in (0.0, 1.0):
        logits_BV = logits_BV / sampling.temperature
    peak_B1 = logits_BV.amax(-1, keepdim=True)
    # Relative to the peak no exponential overflows, and the peak itself weighs exactly 1.
    weight_BV = _filled((logits_BV - peak_B1).exp_())
    total_B1 = _block_sums(weight_BV).sum(-1, keepdim=True, dtype=torch.float64)
    if sampling.temperature == 0:
        token_B1 = logits_BV.argmax(-1, keepdim=True)
    else:
        token_B1 = _inverted(_kept(weight_BV, total_B1, sampling), uniform_B.unsqueeze(1))
    logp_B1 = (logits_BV.gather(-1, token_B1) - peak_B1).double() - total_B1.log()
    return token_B1.squeeze(1), logp_B1.squeeze(1).float()


def _inverted(weight_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """[B, 1]: the first token at which the cumulative weight exceeds uniform times the whole."""
    block_BN = _block_sums(weight_BV)
    threshold_B1 = uniform_B1 * block_BN.sum(-1, keepdim=True, dtype=torch.float64)
    number_B1, left_B1 = _first_above(block_BN, threshold_B1)
    width = weight_BV.shape[-1] // block_BN.shape[-1]
    if width == 1:
        return number_B1
    rows = torch.arange(len(weight_BV), device=weight_BV.device)
    inside_BW = weight_BV.unflatten(-1, (-1, width))[rows, number_B1.squeeze(1)]
    return number_B1 * width + _first_above(inside_BW, left_B1)[0]


def _first_above(weight_BN: Tensor, threshold_B1: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 1] the first index at which the cumulative weight exceeds a threshold; [B, 1] what is left of that there.

    A sum may come to a hair less than it did elsewhere, in another order. The threshold is held inside of it, so that
    an index of weight 0 is never the answer.
    """
    until_BN = weight_BN.cumsum(-1, dtype=torch.float64)
    below_B1 = torch.nextafter(until_BN[:, -1:], torch.zeros_like(threshold_B1))
    threshold_B1 = torch.minimum(threshold_B1, below_B1)
    index_B1 = torch.searchsorted(until_BN, threshold_B1, right=True)
    before_B1 = until_BN.gather(-1, index_B1) - weight_BN.gather(-1, index_B1)
    return index_B1, (threshold_B1 - before_B1).clamp(min=0)


def _kept(weight_BV: Tensor, total_B1: Tensor, sampling: Sampling) -> Tensor:
    """Weights with zeros where a limit cuts; of equally likely tokens at the border the lower id stays."""
    if sampling.min_p is not None:
        weight_BV = torch.where(weight_BV >= sampling.min_p, weight_BV, torch.zeros_like(weight_BV))
    if sampling.top_k is None and sampling.top_p is None:
        return weight_BV
    count_B1, least_B1 = _border(weight_BV, total_B1, sampling)
    kept_BV = weight_BV > least_B1
    equal_BV = weight_BV == least_B1
    room_B1 = count_B1 - kept_BV.sum(-1, keepdim=True)
    if (equal_BV.sum(-1, keepdim=True) > room_B1).any():
        equal_BV &= equal_BV.cumsum(-1) <= room_B1
    return torch.where(kept_BV | equal_BV, weight_BV, torch.zeros_like(weight_BV))


def _border(weight_BV: Tensor, total_B1: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """[B, 1] how many tokens top_k and top_p leave, and the weight of the least likely of them.

    To sort a whole vocabulary would cost more than all else in a step. What is left is mostly among a few.
    """
    most = min(sampling.top_k or weight_BV.shape[-1], weight_BV.shape[-1])
    looked_at = most if sampling.top_p is None else min(most, _FIRST_LOOK)
    while True:
        first_BK = _first(weight_BV, looked_at)
        if sampling.top_p is None:
            return torch.full_like(total_B1, looked_at, dtype=torch.long), first_BK[:, -1:]
        # What stands before a token, itself not counted: the token that crosses the border stays.
        before_BK = first_BK.cumsum(-1, dtype=torch.float64) - first_BK
        count_B1 = (before_BK < sampling.top_p * total_B1).sum(-1, keepdim=True)
        if looked_at == most or (count_B1 < looked_at).all():
            return count_B1, first_BK.gather(-1, count_B1 - 1)
        looked_at = min(most, looked_at * _WIDER)


def _first(weight_BV: Tensor, count: int) -> Tensor:
    """[B, count] the largest weights, in order. They stand in as many blocks at most, those with the largest peaks."""
    if weight_BV.shape[-1] > count * _BLOCK:
        blocks_BNW = weight_BV.unflatten(-1, (-1, _BLOCK))
        number_BK = blocks_BNW.amax(-1).topk(count, sorted=False).indices
        rows_B1 = torch.arange(len(weight_BV), device=weight_BV.device).unsqueeze(1)
        weight_BV = blocks_BNW[rows_B1, number_BK].flatten(1)
    return weight_BV.topk(count).values


def _filled(weight_BV: Tensor) -> Tensor:
    """The vocabulary filled up to whole blocks with tokens of weight 0; one that is no longer than a block as it is."""
    missing = -weight_BV.shape[-1] % _BLOCK
    return pad(weight_BV, (0, missing)) if missing and weight_BV.shape[-1] > _BLOCK else weight_BV


def _block_sums(weight_BV: Tensor) -> Tensor:
    """[B, N] the weight of each block; of each token, where there is no more than one block."""
    if weight_BV.shape[-1] <= _BLOCK:
        return weight_BV
    return weight_BV.unflatten(-1, (-1, _BLOCK)).sum(-1)
