"""Where value estimates come from: nowhere, a running mean, a critic with a body of its own, a head on the policy's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from rlpipe.algos.objective import value_objective
from rlpipe.algos.plan import RLPlan
from rlpipe.models.forward import States, response_states, token_scores
from rlpipe.ops.masking import zero_outside
from rlpipe.training.adaptive import RunningMean
from rlpipe.training.batching import Batching
from rlpipe.training.experience import Experience
from rlpipe.training.step import Learner
from rlpipe.types import PaddedBatch, Totals

# Of some rows of a batch and their values [R, T], their returns [R, T], reward units.
Returns = Callable[[list[int], Tensor], Tensor]
# Likewise what a critic learns them from: the values before the update, and the returns.
_Targets = Callable[[list[int], Tensor], tuple[Tensor, Tensor]]


class NoCritic:
    """A constant value before every token: 0, or the running mean of past scores."""

    def __init__(self, mean: RunningMean | None) -> None:
        self._mean = mean
        self.states = {} if mean is None else {"running_mean": mean}

    def values(self, batch: PaddedBatch) -> Tensor:
        """[B, T] reward units."""
        value = 0.0 if self._mean is None else self._mean.value
        return batch.response_mask_BT.float() * value

    def follow(self, score_B: Tensor) -> None:
        """Take in a step's scores, after its values were read."""
        if self._mean is not None:
            self._mean.follow(score_B.mean().item())


class SeparateCritic:
    """A scorer model beside the policy, with an optimizer of its own."""

    def __init__(self, model: nn.Module, plan: RLPlan, updates: int, batching: Batching) -> None:
        self._model, self._plan, self._batching = model, plan, batching
        self._learner = Learner(model, plan.budget.optim, updates)
        self.states = {"critic": self._learner}

    @torch.no_grad()
    def values(self, batch: PaddedBatch) -> Tensor:
        """[B, T] the estimates before each token, reward units."""
        value_BT = self._batching.in_parts(batch, lambda part: token_scores(self._model, part)[:, :-1])
        return zero_outside(value_BT, batch.response_mask_BT)

    def follow(self, score_B: Tensor) -> None:
        """Nothing to remember: it learns by gradient."""

    def update(self, whole: Experience, totals: Totals) -> Mapping[str, float]:
        """One optimizer step. Returns: its metrics."""
        return self._learned(whole.batch, totals, lambda rows, _: (whole.old_value_BT[rows], whole.return_BT[rows]))[1]

    def read_and_learn(
        self, batch: PaddedBatch, totals: Totals, returns: Returns
    ) -> tuple[Tensor, Mapping[str, float]]:
        """`values`, and the update that learns from them all, with one forward pass for both.

        Args:
            returns: of rows of the batch and their values, [R, T]; a row's may depend on no other row's values.
        Returns: [B, T] the estimates before the update, and its metrics.
        """
        return self._learned(batch, totals, lambda rows, value_RT: (value_RT, returns(rows, value_RT)))

    def _learned(self, batch: PaddedBatch, totals: Totals, targets: _Targets) -> tuple[Tensor, Mapping[str, float]]:
        value_BT = torch.zeros(batch.response_mask_BT.shape, device=batch.response_mask_BT.device)
        seen: dict[str, float] = {}

        def losses() -> Iterator[Tensor]:
            for rows in self._batching.parts(batch):
                part = batch.rows(rows)
                with self._batching.precision():
                    value_RT = token_scores(self._model, part)[:, :-1]
                value_BT[rows] = zero_outside(value_RT.detach(), part.response_mask_BT).to(value_BT.dtype)
                objective = value_objective(
                    self._plan.algo, self._plan.numbers, value_RT,
                    *targets(rows, value_BT[rows]), part.response_mask_BT, totals,
                )  # fmt: skip
                for name, share in objective.metrics.items():
                    seen[name] = seen.get(name, 0.0) + share
                yield objective.loss

        update = self._learner.update(losses())
        return value_BT, seen | {"value/grad_norm": update["grad_norm"]}


class HeadCritic:
    """A scalar head on the policy's last hidden state; it learns in the policy's own update."""

    def __init__(self, policy: nn.Module, head: nn.Linear, batching: Batching) -> None:
        self._policy, self._batching = policy, batching
        self.head = head
        self.states: dict[str, Learner] = {}

    @torch.no_grad()
    def values(self, batch: PaddedBatch) -> Tensor:
        """[B, T] the estimates before each token, reward units."""
        value_BT = self._batching.in_parts(batch, lambda part: self.of(response_states(self._policy, part)))
        return zero_outside(value_BT, batch.response_mask_BT)

    def follow(self, score_B: Tensor) -> None:
        """Nothing to remember: it learns by gradient."""

    def of(self, states: States) -> Tensor:
        """[B, T] values before each token, carrying grad where the states do."""
        return states.scores(self.head)[:, :-1]


Critic = NoCritic | SeparateCritic | HeadCritic
