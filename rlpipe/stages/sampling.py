"""A model's sampler, by the engine and settings of `rollout`."""

from __future__ import annotations

from torch import nn

from rlpipe.rollout.engine import TransformersEngine
from rlpipe.stages.bench import Bench
from rlpipe.training.encode import EncodedTasks
from rlpipe.training.samples import Sampler
from rlpipe.types import Sampling


def sampler(work: Bench, model: nn.Module, tasks: EncodedTasks) -> Sampler:
    """Draws `model`'s completions for `tasks`."""
    params, tokenizer = work.stage.params, work.tokenizer
    engine = TransformersEngine(
        model=model,
        eos_ids=frozenset({tokenizer.eos_token_id}),
        device=work.device,
        batch_size=params.rollout.batch_size,
        token_budget=params.rollout.token_budget,
        precision=work.batching.precision,
    )
    settings = params.rollout
    sampling = Sampling(settings.temperature, settings.max_new_tokens, settings.top_k, settings.top_p, settings.min_p)
    return Sampler(engine, tokenizer, tasks, sampling, work.batching, params.seed)
