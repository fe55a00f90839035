"""Learning from fixed rows: the same for SFT, reward models and preferences. A trainer says what a row costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from rlpipe.checkpoint.store import Rows, Store
from rlpipe.config.schema import Supervised
from rlpipe.dataio.batches import batch_indices
from rlpipe.training.batching import Batching
from rlpipe.training.loop import Limit, Phases, Recorder, StepResult, run_steps
from rlpipe.training.step import Learner


@dataclass(frozen=True)
class Part:
    """A micro-batch of a step.

    Attributes:
        loss: scalar, its share of the step's loss, carries grad.
        metrics: [N] values, averaged over all of the step's.
        tokens: how many were read.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]
    tokens: int


# The row numbers of a micro-batch and of the whole step, whose totals divide the loss.
PartOf = Callable[[Sequence[int], Sequence[int]], Part]
# What happens before a step's update: the step, its row numbers -> metrics.
Before = Callable[[int, Sequence[int]], Mapping[str, float]]


@contextmanager
def dropout_on(model: nn.Module) -> Iterator[None]:
    """The model as it trains where it has no reference to stay close to; outside, dropout is off."""
    model.train()
    try:
        yield
    finally:
        model.eval()


def train_offline(
    learner: Learner,
    costs: Sequence[int],
    settings: Supervised,
    part_of: PartOf,
    batching: Batching,
    *,
    loss_name: str,
    shown: Mapping[str, str],
    seed: int,
    store: Store,
    recorder: Recorder,
    before: Before | None = None,
    limits: Mapping[str, Limit] = MappingProxyType({}),
) -> Rows:
    """Minimise the mean loss of each step's rows, which have `costs` tokens. Returns: one row of metrics a step."""

    def one_step(step: int) -> StepResult:
        phases = Phases()
        index = batch_indices(len(costs), settings.batch_size, step, seed)
        metrics = {} if before is None else dict(before(step, index))
        phases.mark("measure")
        parts: list[Part] = []

        def losses() -> Iterator[Tensor]:
            for part in batching.filled([costs[row] for row in index]):
                parts.append(part_of([index[place] for place in part], index))
                yield parts[-1].loss

        update = learner.update(losses())
        phases.mark("train")
        metrics |= {name: torch.cat([part.metrics[name] for part in parts]).mean().item() for name in parts[0].metrics}
        metrics |= {loss_name: update["loss"], "policy/grad_norm": update["grad_norm"], "policy/lr": update["lr"]}
        return StepResult(metrics, sum(part.tokens for part in parts), phases.seconds)

    return run_steps(
        settings.steps,
        one_step,
        states={"learner": learner},
        limits=limits,
        store=store,
        recorder=recorder,
        seed=seed,
        shown=shown,
    )
