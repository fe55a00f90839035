"""Distances between a student's and a teacher's distribution per token, unreduced.

One signature: (logits_BTV, teacher_logits_BTV, ids_BT, mask_BT, *, numbers) -> [B, T] nats, 0 where masked.

    logits_BTV: [B, T, V] the student's, carry grad.
    teacher_logits_BTV: [B, T, V] the teacher's, no grad, over the same vocabulary.
    ids_BT: [B, T] the tokens that stand there.
    mask_BT: [B, T] bool.

Raises: ShapeError if shapes differ or the mask is not bool.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlpipe.errors import ShapeError
from rlpipe.ops.kl import exact
from rlpipe.ops.logprobs import selective_log_softmax
from rlpipe.ops.masking import check_masked, zero_outside


def reverse_kl(logits_BTV: Tensor, teacher_logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """KL(student || teacher): the student keeps to what the teacher might say. Source: arXiv:2306.08543."""
    student_BTV, teacher_BTV = _log_softmaxes(logits_BTV, teacher_logits_BTV, ids_BT, mask_BT)
    return zero_outside(exact(student_BTV, teacher_BTV), mask_BT)


def forward_kl(logits_BTV: Tensor, teacher_logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """KL(teacher || student): the student covers all that the teacher might say. Source: arXiv:2306.13649."""
    student_BTV, teacher_BTV = _log_softmaxes(logits_BTV, teacher_logits_BTV, ids_BT, mask_BT)
    return zero_outside(exact(teacher_BTV, student_BTV), mask_BT)


def generalized_jsd(
    logits_BTV: Tensor, teacher_logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor, *, jsd_beta: float
) -> Tensor:
    """Jensen-Shannon divergence with weight beta on the teacher.

        m = beta teacher + (1 - beta) student,   beta KL(teacher || m) + (1 - beta) KL(student || m)

    Args: jsd_beta in (0, 1). Source: arXiv:2306.13649 eq. 1.
    """
    student_BTV, teacher_BTV = _log_softmaxes(logits_BTV, teacher_logits_BTV, ids_BT, mask_BT)
    mixture_BTV = torch.logaddexp(teacher_BTV + math.log(jsd_beta), student_BTV + math.log1p(-jsd_beta))
    loss_BT = jsd_beta * exact(teacher_BTV, mixture_BTV) + (1 - jsd_beta) * exact(student_BTV, mixture_BTV)
    return zero_outside(loss_BT, mask_BT)


def soft_targets(
    logits_BTV: Tensor,
    teacher_logits_BTV: Tensor,
    ids_BT: Tensor,
    mask_BT: Tensor,
    *,
    distill_temperature: float,
    distill_alpha: float,
) -> Tensor:
    """The teacher's softened distribution and the token itself, weighed against each other.

        alpha T^2 KL(teacher_T || student_T) + (1 - alpha) (-log student(token))

    Args: distill_temperature T > 0; distill_alpha in [0, 1]. Source: arXiv:1503.02531 section 2.
    """
    student_BTV, teacher_BTV = _log_softmaxes(
        logits_BTV / distill_temperature, teacher_logits_BTV / distill_temperature, ids_BT, mask_BT
    )
    soft_BT = distill_temperature**2 * exact(teacher_BTV, student_BTV)
    hard_BT = -selective_log_softmax(zero_outside(logits_BTV, mask_BT.unsqueeze(-1)), ids_BT)
    return zero_outside(distill_alpha * soft_BT + (1 - distill_alpha) * hard_BT, mask_BT)


def _log_softmaxes(
    logits_BTV: Tensor, teacher_logits_BTV: Tensor, ids_BT: Tensor, mask_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Both log-softmaxes, with zeros where masked: garbage there gives no NaN in the backward pass."""
    if logits_BTV.shape != teacher_logits_BTV.shape:
        raise ShapeError(
            f"student logits {tuple(logits_BTV.shape)}, teacher logits {tuple(teacher_logits_BTV.shape)}; "
            "they must be equal."
        )
    check_masked(mask_BT, ids_BT=ids_BT, logits=logits_BTV[..., 0])
    real_BT1 = mask_BT.unsqueeze(-1)
    return (
        torch.log_softmax(zero_outside(logits_BTV, real_BT1), -1),
        torch.log_softmax(zero_outside(teacher_logits_BTV, real_BT1), -1),
    )
