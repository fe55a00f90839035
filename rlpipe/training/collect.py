"""Draw a step's samples and score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlpipe.config.schema import RLBudget
from rlpipe.dataio.batches import batch_indices
from rlpipe.errors import RewardError
from rlpipe.training.batching import Batching
from rlpipe.training.samples import Sampler, Samples, Scorer, gold_mean, joined, length_metrics, score_metrics
from rlpipe.types import Scored


@dataclass(frozen=True)
class Collected:
    """What a step learns from: samples that have a score, and their scores [B]; `tokens` counts all that was drawn.

    The metrics are those of the first draw, before anything was chosen, so that they speak of the policy.
    """

    samples: Samples
    score_B: Tensor
    metrics: dict[str, float]
    tokens: int


@dataclass(frozen=True)
class Collector:
    """Draws prompts in turn and scores the policy's answers."""

    sampler: Sampler
    reward: Scorer
    gold: Scorer
    budget: RLBudget
    batching: Batching
    seed: int

    def collect(self, step: int) -> Collected:
        """One step's samples.

        With `resample_rounds`, prompts whose samples all score alike are replaced by new ones, as long as the
        rounds last (arXiv:2503.14476 section 3.2); if no prompt has a spread, the first draw is kept as it is.

        Raises: RewardError if no sample has a score.
        """
        if self.budget.resample_rounds is None:
            return self._drawn(step, 0, 1)
        return self._resampled(step, self.budget.resample_rounds + 1)

    def _resampled(self, step: int, rounds: int) -> Collected:
        wanted = self.budget.prompts_per_step
        first = draw = self._drawn(step, 0, rounds)
        parts, scores, prompts, tokens = [], [], 0, 0
        for number in range(rounds):
            if number > 0:
                draw = self._drawn(step, number, rounds)
            tokens += draw.tokens
            useful = spread_groups(draw.score_B, draw.samples.group_B)[: wanted - prompts]
            if useful:
                rows = [row for row, group in enumerate(draw.samples.group_B.tolist()) if group in useful]
                parts.append(draw.samples.select(rows, self.batching))
                scores.append(draw.score_B[rows])
                prompts += len(useful)
            if prompts == wanted:
                break
        metrics = {**first.metrics, "reward/prompts_kept": float(prompts)}
        if not parts:
            return Collected(first.samples, first.score_B, metrics, tokens)
        return Collected(joined(parts, self.batching), torch.cat(scores), metrics, tokens)

    def _drawn(self, step: int, number: int, rounds: int) -> Collected:
        """Draw number `number` of at most `rounds` of a step."""
        size, per_prompt = self.budget.prompts_per_step, self.budget.group_size
        index = batch_indices(len(self.sampler.tasks.tasks), size, step * rounds + number, self.seed)
        drawn = self.sampler.draw(index, per_prompt, step, first=number * per_prompt)
        scored = self.reward(drawn.tasks, drawn.texts)
        kept = [i for i, s in enumerate(scored) if s.total is not None]
        if not kept:
            raise RewardError(f"no completion of this step has a score: {scored[0].missing}.")
        samples = drawn if len(kept) == len(scored) else drawn.select(kept, self.batching)
        score_B = _totals(scored, kept).to(self.batching.device)
        metrics = {
            **score_metrics(scored),
            "reward/gold_mean": gold_mean(self.gold, drawn),
            "reward/frac_zero_std": 1 - len(spread_groups(score_B, samples.group_B)) / len(samples.group_B.unique()),
            **length_metrics(drawn.completions),
        }
        return Collected(samples, score_B, metrics, drawn.tokens)


def spread_groups(score_B: Tensor, group_B: Tensor) -> list[int]:
    """The groups whose samples do not all score alike: only they have something to compare."""
    return [group for group in group_B.unique().tolist() if len(score_B[group_B == group].unique()) > 1]


def _totals(scored: Sequence[Scored], kept: Sequence[int]) -> Tensor:
    return torch.tensor([scored[i].total for i in kept], dtype=torch.float32)
