"""How a model's weights lie in memory while it decodes on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def by_columns(model: nn.Module) -> Iterator[None]:
    """Within, the decoder's linear maps hold their float32 weights column by column: the same values in another order.

    A decoding step multiplies a few rows with every weight, and for a few rows the CPU's matrix product is faster with
    weights in that order (on two machines with AVX-512 1.1 to 6 times, the most for narrow maps and 16 rows; 0.6 to 0.9
    for the widening map of an MLP at more than 32). The head stays as it is: it is wide, and often the embedding too.
    """
    own = {linear: linear.weight for linear in _linears(model)}
    for linear, weight in own.items():
        del linear.weight
        linear.weight = nn.Parameter(_transposed(weight), requires_grad=False)
    try:
        yield
    finally:
        for linear, weight in own.items():
            del linear.weight
            linear.weight = weight


def _linears(model: nn.Module) -> list[nn.Linear]:
    head = model.get_output_embeddings()  # type: ignore[operator]
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and module is not head
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
    ]


def _transposed(weight: Tensor) -> Tensor:
    return weight.detach().t().contiguous().t()
