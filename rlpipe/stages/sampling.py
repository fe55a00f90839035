"""A model's sampler, by the engine and settings of `rollout`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedTokenizerBase

from rlpipe.rollout.engine import Engine, TransformersEngine
from rlpipe.stages.bench import Bench
from rlpipe.training.encode import EncodedTasks
from rlpipe.training.samples import Sampler
from rlpipe.types import Sampling

if TYPE_CHECKING:
    from rlpipe.rollout.vllm_engine import VLLMEngine


def engine(
    work: Bench, model: nn.Module, tokenizer: PreTrainedTokenizerBase, kind: str, sampling: Sampling, role: str
) -> Engine:
    """What draws `model`'s completions.

    Args:
        kind: transformers, vllm or vllm_server.
        sampling: how its completions are drawn.
        role: who the model is in this stage; an engine with a copy of the weights has a scratch folder of that name.
    """
    settings, eos_ids = work.stage.params.rollout, frozenset({tokenizer.eos_token_id})
    match kind:
        case "vllm":
            return vllm_engine(work, model, tokenizer, sampling, role)
        case "vllm_server":
            from rlpipe.rollout.vllm_server import VLLMServer

            folder = weights_folder(work, role)
            return VLLMServer(model, eos_ids, work.batching.dtype, settings.batch_size, settings.vllm, folder)
        case _:
            return TransformersEngine(
                model=model,
                eos_ids=eos_ids,
                device=work.device,
                batch_size=settings.batch_size,
                token_budget=settings.token_budget,
                precision=work.batching.precision,
            )


def vllm_engine(
    work: Bench, model: nn.Module, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, role: str
) -> VLLMEngine:
    """vLLM in this process. Arguments as in `engine`."""
    from rlpipe.rollout.vllm_engine import VLLMEngine

    settings = work.stage.params.rollout
    return VLLMEngine(
        model,
        frozenset({tokenizer.eos_token_id}),
        work.device,
        work.batching.dtype,
        settings.batch_size,
        settings.vllm,
        sampling,
        weights_folder(work, role),
    )


def weights_folder(work: Bench, role: str) -> Path:
    """Scratch for the weights of one of a stage's models."""
    return work.stage.root / ".rlpipe" / "weights" / work.stage.address / role


def sampler(work: Bench, model: nn.Module, tasks: EncodedTasks, role: str = "policy") -> Sampler:
    """Draws `model`'s completions for `tasks`."""
    params, settings = work.stage.params, work.stage.params.rollout
    sampling = Sampling(settings.temperature, settings.max_new_tokens, settings.top_k, settings.top_p, settings.min_p)
    drawing = engine(work, model, work.tokenizer, settings.engine, sampling, role)
    return Sampler(drawing, work.tokenizer, tasks, sampling, work.batching, params.seed)
