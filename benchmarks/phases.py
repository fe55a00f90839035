"""Where a step of online RL spends its time, seen from outside, so that it is the same look at either side.

rollout     inside `generate`, the engine's or transformers'
reward      inside the reward function
reference   until the first forward pass with gradients: reference log-probs, advantages, metrics
forward     from there on, what is neither backward nor optimizer: policy log-probs and loss
backward    inside `Tensor.backward`
optimizer   inside the optimizer's step
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from transformers import GenerationMixin

from benchmarks import ours
from rlpipe.rollout.engine import TransformersEngine

PHASES = ("rollout", "reward", "reference", "forward", "backward", "optimizer")


class Spans:
    """When what was going on, on `time.perf_counter`'s clock; and when an embedding was read with gradients on."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float, float]] = []
        self.forwards: list[float] = []

    def within(self, ended: float, seconds: float) -> dict[str, float]:
        """Seconds by phase of the step that took so long and ended then."""
        began = ended - seconds
        inside = [(name, since, until) for name, since, until in self.spans if since >= began and until <= ended]
        training = min((at for at in self.forwards if began <= at <= ended), default=ended)
        found = dict.fromkeys(PHASES, 0.0)
        for name, since, until in inside:
            found[name] += until - since
        found["reference"] = training - began - found["rollout"] - found["reward"]
        found["forward"] = ended - training - found["backward"] - found["optimizer"]
        return found


@contextmanager
def watched() -> Iterator[Spans]:
    """Fills with what happens inside."""
    seen = Spans()

    def spanned(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **given: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **given)
            finally:
                seen.spans.append((name, began, time.perf_counter()))

        return timed

    def embedded(module: nn.Module, _: Any) -> None:
        if isinstance(module, nn.Embedding) and torch.is_grad_enabled():
            seen.forwards.append(time.perf_counter())

    starts: list[float] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: starts.append(time.perf_counter())),
        register_optimizer_step_post_hook(
            lambda *_: seen.spans.append(("optimizer", starts.pop(), time.perf_counter()))
        ),
        nn.modules.module.register_module_forward_pre_hook(embedded),
    ]
    places = [
        ("rollout", TransformersEngine, "generate"),
        ("rollout", GenerationMixin, "generate"),
        ("reward", ours, "reward"),
        ("backward", torch.Tensor, "backward"),
    ]
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        for name, owner, attribute in places:
            stack.enter_context(patch.object(owner, attribute, spanned(name, getattr(owner, attribute))))
        yield seen
