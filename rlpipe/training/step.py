"""One optimizer step, the same for every trainer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rlpipe.config.schema import Optim
from rlpipe.errors import TrainingError


class Learner:
    """A model, its AdamW and its schedule; `done` counts its updates.

    Micro-batches of one step add up to one gradient: each loss handed to `update` is already divided by the
    step's totals, so how the step is split cannot change the answer.
    """

    def __init__(self, model: nn.Module, optim: Optim, steps: int) -> None:
        """`steps` is the number of updates the schedule spans."""
        self.model = model
        self._optim, self._steps, self.done = optim, steps, 0
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        decayed = [p for p in self._trained.values() if p.ndim >= 2]
        plain = [p for p in self._trained.values() if p.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": optim.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=optim.lr,
            betas=(0.9, 0.95),
            fused=True,
        )

    def update(self, losses: Iterable[Tensor]) -> dict[str, float]:
        """Backward through each micro-batch's loss, clip, step. Returns: loss, grad_norm (before the clip), lr.

        Raises: TrainingError when the gradient is not finite; nothing has been changed then.
        """
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            loss.backward()
            total += loss.item()
        norm = float(nn.utils.clip_grad_norm_(self._trained.values(), self._optim.max_grad_norm))
        if not math.isfinite(norm):
            raise TrainingError(
                f"update {self.done}: the gradient is not finite (loss {total}). Lower optim.lr="
                f"{self._optim.lr}, or look at the last metrics before this step."
            )
        lr = self._optim.lr * scheduled(self.done, self._steps, self._optim)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self.done += 1
        return {"loss": total, "grad_norm": norm, "lr": lr}

    def state_dict(self) -> dict[str, Any]:
        """Only what learns: under LoRA the base weights stay where they came from."""
        return {"weights": dict(self._trained), "optimizer": self._optimizer.state_dict(), "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


def scheduled(update: int, updates: int, optim: Optim) -> float:
    """The share of the peak learning rate at an update (from 0): linear warm-up, then the schedule down to 0."""
    if update < optim.warmup_steps:
        return (update + 1) / (optim.warmup_steps + 1)
    left = 1 - (update - optim.warmup_steps) / max(1, updates - optim.warmup_steps)
    if optim.schedule == "linear":
        return left
    if optim.schedule == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return 1.0
