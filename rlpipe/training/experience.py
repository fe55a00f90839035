"""One step's samples with everything an update needs, and a buffer of older ones."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from rlpipe.types import PaddedBatch


@dataclass(frozen=True)
class Experience:
    """All [B, T] but `group_B` and `born`, no grad, 0 where masked.

    Attributes:
        group_B: [B] int64, which prompt a sequence answers.
        old_logp_BT: nats, the policy that sampled, at the sampling temperature.
        ref_logp_BT: nats, the reference, untempered.
        old_value_BT, return_BT: reward units, the value estimates at sampling and their targets.
        adv_BT: reward units.
        born: updates of the policy before it drew these samples.
    """

    batch: PaddedBatch
    group_B: Tensor
    old_logp_BT: Tensor
    ref_logp_BT: Tensor
    old_value_BT: Tensor
    adv_BT: Tensor
    return_BT: Tensor
    born: int

    def rows(self, index: Tensor | list[int]) -> Experience:
        """Some of the sequences."""
        tensors = {name: tensor[index] for name, tensor in self._tensors().items()}
        return Experience(self.batch.rows(index), **tensors, born=self.born)

    def state_dict(self) -> dict[str, Any]:
        batch = {field.name: getattr(self.batch, field.name) for field in fields(self.batch)}
        return {"batch": batch, **self._tensors(), "born": self.born}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Experience:
        return cls(**{**state, "batch": PaddedBatch(**state["batch"])})

    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("batch", "born")}


class Replay:
    """The last `steps` steps' experience. Each step learns from its own and from `updates` - 1 older ones."""

    def __init__(self, steps: int, updates: int, seed: int) -> None:
        self._kept: deque[Experience] = deque(maxlen=steps)
        self._updates, self._seed = updates, seed

    def learn_from(self, fresh: Experience, step: int) -> list[Experience]:
        """The fresh experience first, then older ones drawn without replacement, as far as there are any."""
        older = list(self._kept)
        self._kept.append(fresh)
        chooser = random.Random(f"replay:{self._seed}:{step}")
        return [fresh, *chooser.sample(older, min(self._updates - 1, len(older)))]

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [experience.state_dict() for experience in self._kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept.extend(Experience.from_state(saved) for saved in state["kept"])
