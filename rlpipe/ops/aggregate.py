"""From per-token losses to one number: how much each token weighs in an optimizer step.

One signature: (mask_BT, group_B, max_tokens) -> weight_BT, and the loss is  sum(weight_BT * loss_BT).

    mask_BT: [B, T] bool, the whole optimizer step's.
    group_B: [B] int64, which prompt a sequence answers.
    max_tokens: the most tokens a response may have.

Weights are made once for the step and cut with its rows, so the parts of any split add up to the same sum.
Returns: [B, T] float32, 0 where masked. Raises: ShapeError if the mask is not bool.
"""

from __future__ import annotations

from torch import Tensor

from rlpipe.ops.groups import group_sum
from rlpipe.ops.masking import check_masked


def token_mean(mask_BT: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """Every real token of the step weighs the same. Source: arXiv:2503.14476 eq. 8."""
    return _real(mask_BT) / mask_BT.sum().clamp(min=1)


def sequence_mean(mask_BT: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """Mean over each sequence's tokens, then over sequences: short answers weigh more per token.

    Source: arXiv:2402.03300 eq. 3.
    """
    return _real(mask_BT) / mask_BT.sum(1, keepdim=True).clamp(min=1) / len(mask_BT)


def sequence_sum(mask_BT: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """Sum over each sequence's tokens, then mean over sequences: the likelihood of whole responses.

    Source: arXiv:2402.14740 eq. 7, whose actions are whole responses.
    """
    return _real(mask_BT) / len(mask_BT)


def constant_length(mask_BT: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """Sum over each sequence's tokens over the longest possible response: no preference for any length.

    Source: arXiv:2503.20783, the division by a constant in place of the response's length.
    """
    return _real(mask_BT) / (len(mask_BT) * max_tokens)


def prompt_mean(mask_BT: Tensor, group_B: Tensor, max_tokens: int) -> Tensor:
    """Mean over all tokens that answer a prompt, then over prompts."""
    tokens_B = group_sum(mask_BT.sum(1).float(), group_B)
    return _real(mask_BT) / tokens_B.clamp(min=1).unsqueeze(1) / len(group_B.unique())


def _real(mask_BT: Tensor) -> Tensor:
    check_masked(mask_BT)
    return mask_BT.float()
