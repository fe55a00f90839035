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
from rlpipe.training.watch import Seen, Watch


@dataclass(frozen=True)
class Measure:
    """Draws for the same first `prompts` tasks every time and scores with the held-out reward.

    The policy's distance is to `reference`, untempered.
    """

    policy: nn.Module
    reference: Reference
    sampler: Sampler
    heldout: Scorer
    watch: Watch
    batching: Batching
    every: int
    prompts: int

    def when_due(self, step: int, steps: int) -> Mapping[str, float]:
        """Metrics of every `every`-th step and of the last one; nothing at the others."""
        if step % self.every and step != steps - 1:
            return {}
        samples = self.sampler.draw(range(min(self.prompts, len(self.sampler.tasks.tasks))), 1, step)
        logp_BT = logp_in_parts(self.policy, samples.batch, self.batching, 1.0)
        ref_BT = reference_logp(self.reference, samples.batch, self.batching)
        heldout = self.heldout(samples.tasks, samples.texts)
        scores, kl = score_metrics(heldout), kl_metrics(logp_BT, ref_BT, samples.batch.response_mask_BT)
        seen = Seen(samples.tasks, samples.completions, samples.texts, None, heldout)
        return {
            **scores,
            "reward/gold_mean": scores["reward/score_mean"],
            **kl,
            **length_metrics(samples.completions),
            **self.watch.take(step, seen, kl["kl/ref_seq_sum"]),
        }
