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
from rlpipe.training.samples import Sampler, Samples, Scorer, joined, length_metrics, score_mean, score_metrics
from rlpipe.training.watch import Seen
from rlpipe.types import Scored


@dataclass(frozen=True)
class Collected:
    """What a step learns from: samples that have a score, and their scores [B]; `tokens` counts all that was drawn.

    The metrics, and what is `seen` for the watch, are of the first draw, before anything was chosen, so that they
    speak of the policy.
    """

    samples: Samples
    score_B: Tensor
    metrics: dict[str, float]
    seen: Seen
    tokens: int


@dataclass(frozen=True)
class _Draw:
    """One draw, its scores, and the part of it that has one: `samples` with their scores [B]."""

    drawn: Samples
    scored: list[Scored]
    samples: Samples
    score_B: Tensor


@dataclass(frozen=True)
class Collector:
    """Draws prompts in turn and scores the policy's answers; `heldout` is the reward that is not trained on."""

    sampler: Sampler
    reward: Scorer
    heldout: Scorer
    budget: RLBudget
    batching: Batching
    seed: int

    def collect(self, step: int) -> Collected:
        """One step's samples.

        With `resample_rounds`, prompts whose samples all score alike are replaced by new ones, as long as the
        rounds last (arXiv:2503.14476 section 3.2); if no prompt has a spread, the first draw is kept as it is.

        Raises: RewardError if no sample has a score.
        """
        rounds = 1 if self.budget.resample_rounds is None else self.budget.resample_rounds + 1
        first = self._drawn(step, 0, rounds)
        drawn, heldout = first.drawn, self.heldout(first.drawn.tasks, first.drawn.texts)
        metrics = {
            **score_metrics(first.scored),
            "reward/gold_mean": score_mean(heldout),
            "reward/frac_zero_std": _alike(first),
            **length_metrics(drawn.completions),
        }
        seen = Seen(drawn.tasks, drawn.completions, drawn.texts, first.scored, heldout)
        if self.budget.resample_rounds is None:
            return Collected(first.samples, first.score_B, metrics, seen, drawn.tokens)
        return self._resampled(step, rounds, first, metrics, seen)

    def _resampled(self, step: int, rounds: int, first: _Draw, metrics: dict[str, float], seen: Seen) -> Collected:
        wanted, draw = self.budget.prompts_per_step, first
        parts, scores, prompts, tokens = [], [], 0, 0
        for number in range(rounds):
            if number > 0:
                draw = self._drawn(step, number, rounds)
            tokens += draw.drawn.tokens
            useful = spread_groups(draw.score_B, draw.samples.group_B)[: wanted - prompts]
            if useful:
                rows = [row for row, group in enumerate(draw.samples.group_B.tolist()) if group in useful]
                parts.append(draw.samples.select(rows, self.batching))
                scores.append(draw.score_B[rows])
                prompts += len(useful)
            if prompts == wanted:
                break
        metrics = {**metrics, "reward/prompts_kept": float(prompts)}
        if not parts:
            return Collected(first.samples, first.score_B, metrics, seen, tokens)
        return Collected(joined(parts, self.batching), torch.cat(scores), metrics, seen, tokens)

    def _drawn(self, step: int, number: int, rounds: int) -> _Draw:
        """Draw number `number` of at most `rounds` of a step."""
        size, per_prompt = self.budget.prompts_per_step, self.budget.group_size
        index = batch_indices(len(self.sampler.tasks.tasks), size, step * rounds + number, self.seed)
        drawn = self.sampler.draw(index, per_prompt, step, first=number * per_prompt)
        scored = self.reward(drawn.tasks, drawn.texts)
        kept = [i for i, s in enumerate(scored) if s.total is not None]
        if not kept:
            raise RewardError(f"no completion of this step has a score: {scored[0].missing}.")
        samples = drawn if len(kept) == len(scored) else drawn.select(kept, self.batching)
        return _Draw(drawn, scored, samples, _totals(scored, kept).to(self.batching.device))


def _alike(draw: _Draw) -> float:
    """Share of the prompts whose samples all score alike."""
    return 1 - len(spread_groups(draw.score_B, draw.samples.group_B)) / len(draw.samples.group_B.unique())


def spread_groups(score_B: Tensor, group_B: Tensor) -> list[int]:
    """The groups whose samples do not all score alike: only they have something to compare."""
    return [group for group in group_B.unique().tolist() if len(score_B[group_B == group].unique()) > 1]


def _totals(scored: Sequence[Scored], kept: Sequence[int]) -> Tensor:
    return torch.tensor([scored[i].total for i in kept], dtype=torch.float32)
