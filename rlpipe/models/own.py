"""Modules of transformers and peft whose forward pass is ours, where ours computes the same in less time or memory."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

# A module and what it is called with, to what it returns.
Forward = Callable[..., Any]


def take_over(
    model: nn.Module,
    forward: Forward,
    fits: Callable[[Any], bool],
    same: Callable[[Any], bool] = lambda _: True,
) -> None:
    """From now on those of `model`'s modules that `fits` names compute by `forward`, where that is what they compute:
    `same` tries it out on the first of each class, so that it is not believed of a name.
    """
    found: dict[type, bool] = {}
    for module in model.modules():
        if not fits(module):
            continue
        kind = type(module)
        if kind not in found:
            found[kind] = same(module)
        if found[kind]:
            bind(module, forward)


def bind(module: Any, forward: Forward) -> None:
    """From now on `module` computes by `forward`; a copy of it does so with its own weights."""
    module.forward = MethodType(forward, module)


def release(module: Any) -> None:
    """From now on `module` computes as its class does."""
    vars(module).pop("forward", None)
