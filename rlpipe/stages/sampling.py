"""A model's sampler, by the engine and settings of `rollout`."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedTokenizerBase

from rlpipe.rollout.engine import Engine, TransformersEngine
from rlpipe.stages.bench import Bench
from rlpipe.training.encode import EncodedTasks
from rlpipe.training.samples import Sampler
from rlpipe.types import Sampling


def engine(work: Bench, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Engine:
    """What draws `model`'s completions."""
    settings = work.stage.params.rollout
    return TransformersEngine(
        model=model,
        eos_ids=frozenset({tokenizer.eos_token_id}),
        device=work.device,
        batch_size=settings.batch_size,
        token_budget=settings.token_budget,
        precision=work.batching.precision,
    )


def sampler(work: Bench, model: nn.Module, tasks: EncodedTasks) -> Sampler:
    """Draws `model`'s completions for `tasks`."""
    params, settings = work.stage.params, work.stage.params.rollout
    sampling = Sampling(settings.temperature, settings.max_new_tokens, settings.top_k, settings.top_p, settings.min_p)
    return Sampler(engine(work, model, work.tokenizer), work.tokenizer, tasks, sampling, work.batching, params.seed)
