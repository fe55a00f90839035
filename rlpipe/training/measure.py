"""Reward against KL for trainers that draw no samples of their policy: measured now and then, never learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from rlpipe.models.learner import Reference
from rlpipe.training.batching import Batching
from rlpipe.training.samples import (
    Sampler,
    Scorer,
    kl_metrics,
    length_metrics,
    logp_in_parts,
    reference_logp,
    score_metrics,
)


@dataclass(frozen=True)
class Measure:
    """Draws for the same first `prompts` tasks every time and scores with the evaluation's verifier, `gold`.

    The policy's distance is to `reference`, untempered.
    """

    policy: nn.Module
    reference: Reference
    sampler: Sampler
    gold: Scorer
    batching: Batching
    every: int
    prompts: int

    def when_due(self, step: int, steps: int) -> Mapping[str, float]:
        """Metrics of every `every`-th step and of the last one; nothing at the others."""
        if step % self.every and step != steps - 1:
            return {}
        samples = self.sampler.draw(range(min(self.prompts, len(self.sampler.tasks.tasks))), 1, step)
        size = len(samples.texts)
        logp_BT = logp_in_parts(self.policy, samples.batch, self.batching, size, 1.0)
        ref_BT = reference_logp(self.reference, samples.batch, self.batching, size)
        scores = score_metrics(self.gold(samples.tasks, samples.texts))
        return {
            **scores,
            "reward/gold_mean": scores["reward/score_mean"],
            **kl_metrics(logp_BT, ref_BT, samples.batch.response_mask_BT),
            **length_metrics(samples.completions),
        }
