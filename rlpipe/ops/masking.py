"""Masks and shapes. One polarity: True counts."""

from __future__ import annotations

import torch
from torch import Tensor

from rlpipe.errors import ShapeError


def check_masked(mask: Tensor, **tensors: Tensor) -> None:
    """Raises: ShapeError unless `mask` is bool and every named tensor has its shape."""
    if mask.dtype != torch.bool:
        raise ShapeError(f"mask has dtype {mask.dtype}; expected bool, True where a position counts.")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ShapeError(f"{name} has shape {tuple(tensor.shape)}, mask {tuple(mask.shape)}; they must be equal.")


def zero_outside(values: Tensor, mask: Tensor) -> Tensor:
    """`values` with exact zeros where `mask` is False, NaN and infinities there included."""
    return torch.where(mask, values, torch.zeros_like(values))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Scalar mean over the True positions; 0 if there is none."""
    return zero_outside(values, mask).sum() / mask.sum().clamp(min=1)


def masked_std(values: Tensor, mask: Tensor) -> Tensor:
    """Scalar population standard deviation over the True positions; 0 if there is none."""
    centred = values - masked_mean(values, mask)
    return masked_mean(centred.square(), mask).sqrt()


def last_true(mask_BT: Tensor) -> Tensor:
    """[B, T] bool: only the last True position of each row."""
    after = mask_BT.flip(1).cumsum(1).flip(1)
    return mask_BT & (after == 1)
