"""Learning a policy from pairs, against a frozen reference or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rlpipe.algos.base import picked
from rlpipe.algos.plan import PreferencePlan
from rlpipe.checkpoint.store import Rows, Store
from rlpipe.models.forward import response_stats
from rlpipe.models.learner import Reference
from rlpipe.ops.needs import needs_of
from rlpipe.training.batching import Batching
from rlpipe.training.encode import EncodedPairs
from rlpipe.training.loop import Recorder
from rlpipe.training.measure import Measure
from rlpipe.training.offline import Part, train_offline
from rlpipe.training.samples import logp_in_parts, reference_logp
from rlpipe.training.step import Learner
from rlpipe.types import PairLogps


class PreferenceTrainer:
    """Improves `policy` by `plan`. The reference's log-probs are computed once, before the first step."""

    def __init__(
        self,
        plan: PreferencePlan,
        policy: nn.Module,
        reference: Reference,
        pairs: EncodedPairs,
        measure: Measure,
        batching: Batching,
    ) -> None:
        self._plan, self._policy, self._reference, self._pairs = plan, policy, reference, pairs
        self._measure, self._batching = measure, batching
        self._needs = needs_of(plan.algo.pair_loss)
        self._numbers = picked(plan.algo.pair_loss, plan.numbers)
        self._ref_chosen, self._ref_rejected = self._reference_logps()
        self._kl_baseline = torch.zeros((), device=batching.device)

    def train(self, seed: int, store: Store, recorder: Recorder) -> Rows:
        """Minimise the algorithm's pair loss, averaged over each step's pairs.

        Returns: one row a step with the loss's metrics; every `measure_every` steps also reward and KL of samples.
        """
        budget = self._plan.budget
        return train_offline(
            Learner(self._policy, budget.optim, budget.steps),
            self._pairs.tokens,
            budget,
            self._part,
            self._batching,
            before=self._before,
            limits={"watch": self._measure.watch},
            loss_name="policy/loss",
            shown={"policy/loss": "loss", "preference/accuracy": "acc", "reward/score_mean": "reward"},
            seed=seed,
            store=store,
            recorder=recorder,
        )

    def _before(self, step: int, index: Sequence[int]) -> Mapping[str, float]:
        measured = dict(self._measure.when_due(step, self._plan.budget.steps))
        if self._needs.kl_baseline:
            self._kl_baseline = self._mismatched_kl(index)
            measured["preference/kl_baseline"] = self._kl_baseline.item()
        return measured

    def _part(self, part: Sequence[int], step: Sequence[int]) -> Part:
        rows = list(part)
        chosen, rejected = [self._pairs.chosen[i] for i in rows], [self._pairs.rejected[i] for i in rows]
        # One forward for both sides: the pair shares its prompt.
        batch = self._batching.collate([*chosen, *rejected])
        with self._batching.precision():
            logp_BT = response_stats(self._policy, batch, temperature=1.0).logp_BT
        chosen_B, rejected_B = logp_BT.sum(1).chunk(2)
        chosen_length_B, rejected_length_B = batch.response_mask_BT.sum(1).float().chunk(2)
        logps = PairLogps(
            chosen_B, rejected_B, self._ref_chosen[rows], self._ref_rejected[rows],
            chosen_length_B, rejected_length_B, self._kl_baseline,
        )  # fmt: skip
        loss = self._plan.algo.pair_loss(logps, **self._numbers)
        return Part(loss.loss_B.sum() / len(step), loss.metrics_B, int(batch.attention_BL.sum()))

    def _mismatched_kl(self, index: Sequence[int]) -> Tensor:
        """Scalar nats >= 0: the policy's mean log-ratio to the reference on other prompts' responses.

        Each prompt of the step meets the chosen response of the next one. Source: arXiv:2402.01306 section 4.1.
        """
        prompts = [self._pairs.chosen[i][0] for i in index]
        responses = [self._pairs.chosen[i][1] for i in [*index[1:], index[0]]]
        batch = self._batching.collate(list(zip(prompts, responses, strict=True)))
        policy_BT = logp_in_parts(self._policy, batch, self._batching, 1.0)
        ratio_B = (policy_BT - reference_logp(self._reference, batch, self._batching)).sum(1)
        return ratio_B.mean().clamp(min=0)

    def _reference_logps(self) -> tuple[Tensor, Tensor]:
        """[N] nats each: the reference's log-probs of the chosen and the rejected responses; zeros where nothing
        reads them.
        """
        pairs = self._pairs
        if not self._needs.reference:
            nothing = torch.zeros(len(pairs.chosen), device=self._batching.device)
            return nothing, nothing
        batch = self._batching.collate([*pairs.chosen, *pairs.rejected])
        chosen, rejected = reference_logp(self._reference, batch, self._batching).sum(1).chunk(2)
        return chosen, rejected
