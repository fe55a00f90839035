"""A policy that learns from demonstrations beside the others: measured as they are, against where it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from rlpipe.algos.plan import SupervisedPlan
from rlpipe.checkpoint.store import Rows, Store
from rlpipe.training.batching import Batching
from rlpipe.training.encode import Example
from rlpipe.training.loop import Recorder
from rlpipe.training.measure import Measure
from rlpipe.training.offline import train_offline
from rlpipe.training.sft import supervised_part
from rlpipe.training.step import Learner


class SupervisedTrainer:
    """Improves `policy` on `examples` by `plan`.

    Dropout is off, as for the other policies and unlike in the stage `sft`: the reference is this policy at step 0.
    """

    def __init__(
        self, plan: SupervisedPlan, policy: nn.Module, examples: Sequence[Example], measure: Measure, batching: Batching
    ) -> None:
        self._plan, self._policy, self._examples = plan, policy, examples
        self._measure, self._batching = measure, batching

    def train(self, seed: int, store: Store, recorder: Recorder) -> Rows:
        """Returns: one row a step with loss and token accuracy; every `measure_every` steps reward and KL too."""
        budget = self._plan.budget

        def before(step: int, index: Sequence[int]) -> Mapping[str, float]:  # noqa: ARG001 - a `Before`
            return self._measure.when_due(step, budget.steps)

        return train_offline(
            Learner(self._policy, budget.optim, budget.steps),
            [len(prompt) + len(response) for prompt, response in self._examples],
            budget,
            supervised_part(self._policy, self._examples, self._batching),
            self._batching,
            before=before,
            limits={"watch": self._measure.watch},
            loss_name="policy/loss",
            shown={"policy/loss": "loss", "sft/token_accuracy": "acc", "reward/score_mean": "reward"},
            seed=seed,
            store=store,
            recorder=recorder,
        )
