"""From per-token losses to one number. Denominators are totals of the whole optimizer step, over all its
micro-batches, so that the parts of any split add up to the same sum.

One signature: (loss_BT, mask_BT, totals) -> scalar, the micro-batch's share of the step's loss.
"""

from __future__ import annotations

from torch import Tensor

from rlpipe.ops.masking import check_masked, zero_outside
from rlpipe.types import Totals


def token_mean(loss_BT: Tensor, mask_BT: Tensor, totals: Totals) -> Tensor:
    """Every real token of the step weighs the same. Source: arXiv:2503.14476 eq. 8."""
    check_masked(mask_BT, loss_BT=loss_BT)
    return zero_outside(loss_BT, mask_BT).sum() / totals.tokens


def sequence_mean(loss_BT: Tensor, mask_BT: Tensor, totals: Totals) -> Tensor:
    """Mean over each sequence's tokens, then over sequences: short answers weigh more per token.

    Source: arXiv:2402.03300 eq. 3.
    """
    check_masked(mask_BT, loss_BT=loss_BT)
    per_sequence_B = zero_outside(loss_BT, mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)
    return per_sequence_B.sum() / totals.sequences
