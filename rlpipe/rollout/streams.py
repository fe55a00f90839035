"""Random numbers with an address: the uniform for (seed, step, prompt, sample, position) is a pure function.

So a sample does not depend on what else is in its batch, on the order of batches, or on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The finaliser of splitmix64 (Steele, Lea, Flood 2014), as two's-complement int64.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def keys(streams: Sequence[tuple[int, int, int, int]], device: torch.device) -> Tensor:
    """[B] int64: one key for each stream address."""
    columns = torch.tensor(streams, dtype=torch.int64, device=device).reshape(-1, 4)
    key_B = torch.zeros(len(streams), dtype=torch.int64, device=device)
    for column in columns.unbind(1):
        key_B = _mix(key_B * 31 + column)
    return key_B


def seeds(streams: Sequence[tuple[int, int, int, int]]) -> list[int]:
    """A seed in [0, 2^63) for each stream address, for samplers with generators of their own."""
    return [key & ((1 << 63) - 1) for key in keys(streams, torch.device("cpu")).tolist()]


def uniforms(key_B: Tensor, position_B: Tensor | int) -> Tensor:
    """[B] float64 in [0, 1): each stream's number at a position, one for all or each its own."""
    bits_B = _mix(key_B + position_B * 0x632BE5A6)
    return _shifted(bits_B, 11).double() / (1 << 53)


def _mix(x: Tensor) -> Tensor:
    x = x + _GAMMA
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
