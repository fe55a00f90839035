"""Draw completions, score them, and measure how far their policy has moved from its reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlpipe.dataio.chat import decode
from rlpipe.models.forward import response_logits, response_stats
from rlpipe.models.learner import Reference
from rlpipe.ops.kl import exact, k1, k3
from rlpipe.ops.masking import masked_mean, zero_outside
from rlpipe.rollout.engine import Engine
from rlpipe.training.batching import Batching
from rlpipe.training.encode import EncodedTasks
from rlpipe.types import Completion, PaddedBatch, Request, Sampling, Scored, Task

Scorer = Callable[[Sequence[Task], Sequence[str]], list[Scored]]


@dataclass(frozen=True)
class Samples:
    """Completions as drawn, row by row, as text and as tensors.

    sampler_logp_BT: [B, T] nats at the sampling temperature, 0 where masked.
    group_B: [B] int64, equal for samples of the same prompt.
    """

    tasks: list[Task]
    prompts: list[tuple[int, ...]]
    completions: list[Completion]
    texts: list[str]
    batch: PaddedBatch
    sampler_logp_BT: Tensor
    group_B: Tensor

    def select(self, rows: Sequence[int], batching: Batching) -> Samples:
        """Only the named rows, padded anew."""
        return samples_of(
            [self.tasks[i] for i in rows],
            [self.prompts[i] for i in rows],
            [self.completions[i] for i in rows],
            [self.texts[i] for i in rows],
            self.group_B[torch.tensor(rows, dtype=torch.long, device=self.group_B.device)],
            batching,
        )

    @property
    def tokens(self) -> int:
        """How many tokens were drawn."""
        return sum(len(completion.ids) for completion in self.completions)


@dataclass(frozen=True)
class Sampler:
    """A policy's engine with the tasks it answers."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    tasks: EncodedTasks
    sampling: Sampling
    batching: Batching
    seed: int

    def draw(self, index: Sequence[int], per_prompt: int, step: int, *, first: int = 0) -> Samples:
        """`per_prompt` completions for each task in `index`; siblings stand side by side.

        `first` is the number of the first sample: another one draws others for the same step and prompt.
        """
        numbers = range(first, first + per_prompt)
        repeated = [(group, i, sample) for group, i in enumerate(index) for sample in numbers]
        requests = [Request(self.tasks.prompts[i], (self.seed, step, i, sample)) for _, i, sample in repeated]
        completions = self.engine.generate(requests, self.sampling)
        return samples_of(
            [self.tasks.tasks[i] for _, i, _ in repeated],
            [request.prompt_ids for request in requests],
            completions,
            [decode(self.tokenizer, completion.ids) for completion in completions],
            torch.tensor([group for group, _, _ in repeated], device=self.batching.device),
            self.batching,
        )


def joined(parts: Sequence[Samples], batching: Batching) -> Samples:
    """All samples of several draws, padded anew, their groups kept apart."""
    counts = [int(part.group_B.max()) + 1 for part in parts]
    return samples_of(
        [task for part in parts for task in part.tasks],
        [prompt for part in parts for prompt in part.prompts],
        [completion for part in parts for completion in part.completions],
        [text for part in parts for text in part.texts],
        torch.cat([part.group_B + sum(counts[:at]) for at, part in enumerate(parts)]),
        batching,
    )


def samples_of(
    tasks: list[Task],
    prompts: list[tuple[int, ...]],
    completions: list[Completion],
    texts: list[str],
    group_B: Tensor,
    batching: Batching,
) -> Samples:
    """Rows with their tensors."""
    batch = batching.collate([(prompt, c.ids) for prompt, c in zip(prompts, completions, strict=True)])
    logp_BT = torch.zeros(batch.response_ids_BT.shape)
    for row, completion in enumerate(completions):
        logp_BT[row, : len(completion.logps)] = torch.tensor(completion.logps)
    return Samples(tasks, prompts, completions, texts, batch, logp_BT.to(batching.device), group_B)


@torch.no_grad()
def logp_in_parts(model: nn.Module, batch: PaddedBatch, batching: Batching, temperature: float) -> Tensor:
    """[B, T] nats of a whole step's responses."""
    return batching.in_parts(batch, lambda part: response_stats(model, part, temperature=temperature).logp_BT)


def reference_logp(reference: Reference, batch: PaddedBatch, batching: Batching) -> Tensor:
    """[B, T] nats under the frozen reference, untempered."""
    with reference() as model:
        return logp_in_parts(model, batch, batching, 1.0)


@torch.no_grad()
def exact_kl_in_parts(policy: nn.Module, reference: Reference, batch: PaddedBatch, batching: Batching) -> Tensor:
    """[B, T] nats: KL(policy || reference) over the whole vocabulary, untempered."""

    def of_part(part: PaddedBatch) -> Tensor:
        policy_BTV = response_logits(policy, part).log_probs()
        with reference() as model:
            return exact(policy_BTV, response_logits(model, part).log_probs())

    return zero_outside(batching.in_parts(batch, of_part), batch.response_mask_BT)


def kl_metrics(logp_BT: Tensor, ref_logp_BT: Tensor, mask_BT: Tensor) -> dict[str, float]:
    """KL(policy || reference) from the policy's own samples, untempered: per token, and summed over a sequence."""
    k1_BT = zero_outside(k1(logp_BT, ref_logp_BT), mask_BT)
    return {
        "kl/ref_k1_token": masked_mean(k1_BT, mask_BT).item(),
        "kl/ref_k3_token": masked_mean(k3(logp_BT, ref_logp_BT), mask_BT).item(),
        "kl/ref_seq_sum": k1_BT.sum(1).mean().item(),
    }


def length_metrics(completions: Sequence[Completion]) -> dict[str, float]:
    """Tokens per completion, and the share cut off before its end token."""
    lengths = [len(completion.ids) for completion in completions]
    return {
        "length/mean": sum(lengths) / len(lengths),
        "length/max": float(max(lengths)),
        "length/truncated_frac": sum(not c.finished for c in completions) / len(completions),
    }


def score_metrics(scored: Sequence[Scored]) -> dict[str, float]:
    """Mean total and mean of each component, over the completions that have a score."""
    known = sum(s.total is not None for s in scored)
    components = sorted({name for s in scored for name in s.components})
    metrics = {
        f"reward/{name}_mean": _mean([s.components[name] for s in scored if name in s.components])
        for name in components
    }
    return metrics | {"reward/score_mean": score_mean(scored), "reward/missing_frac": 1 - known / len(scored)}


def score_mean(scored: Sequence[Scored]) -> float:
    """Mean total over the completions that have a score."""
    return _mean([s.total for s in scored if s.total is not None])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
