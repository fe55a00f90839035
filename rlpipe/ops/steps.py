"""Process rewards: a judgement of each step of a response, at the token where the step ends."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rlpipe.ops.masking import check_masked, zero_outside


def step_cross_entropy(score_BT: Tensor, label_BT: Tensor, end_BT: Tensor) -> Tensor:
    """[B, T] nats: cross-entropy of "this step is right" at the steps' ends, 0 elsewhere.

        l = -label log sigmoid(score) - (1 - label) log sigmoid(-score)

    Args:
        score_BT: [B, T] logits, carry grad.
        label_BT: [B, T] 1 where the step that ends there is right, 0 where wrong.
        end_BT: [B, T] bool, True where a step ends.
    Source: arXiv:2305.20050 section 2.4.
    """
    check_masked(end_BT, score_BT=score_BT, label_BT=label_BT)
    score_BT, label_BT = zero_outside(score_BT, end_BT), zero_outside(label_BT, end_BT)
    return zero_outside(binary_cross_entropy_with_logits(score_BT, label_BT, reduction="none"), end_BT)
