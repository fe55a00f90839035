"""What optimizers are handed, on either side: the proof that both computed the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

Gradients = dict[str, Tensor]


@contextmanager
def gradients_of(model: nn.Module) -> Iterator[list[Gradients]]:
    """Fills with each optimizer step's gradients of the model's parameters, as the optimizer sees them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    steps: list[Gradients] = []

    def look(optimizer: torch.optim.Optimizer, _: Any, __: Any) -> None:
        held = [p for group in optimizer.param_groups for p in group["params"] if id(p) in names and p.grad is not None]
        if held:
            steps.append({names[id(p)]: p.grad.detach().float().clone() for p in held})

    handle = register_optimizer_step_pre_hook(look)
    try:
        yield steps
    finally:
        handle.remove()


def gap(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Length of the difference over the length of theirs, all parameters as one vector."""
    assert ours.keys() == theirs.keys(), f"other parameters: {sorted(ours.keys() ^ theirs.keys())}"
    apart = sum(float((ours[name] - theirs[name]).double().square().sum()) for name in theirs)
    return math.sqrt(apart / sum(float(theirs[name].double().square().sum()) for name in theirs))


def require_same(ours: Sequence[Gradients], theirs: Sequence[Gradients], limit: float) -> list[float]:
    """The gap of every optimizer step. Raises: AssertionError if one is not within `limit`, or a step is missing."""
    gaps = [gap(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    assert gaps, "no optimizer step was seen"
    assert max(gaps) <= limit, f"the two sides' gradients differ by {max(gaps):.1e} of their length (limit {limit:g})"
    print("both sides' gradients are the same within " + ", ".join(f"{gap:.1e}" for gap in gaps) + " of their length")
    return gaps
