"""What every stage that runs a model sets up first: determinism, device, tokenizer, tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpipe.dataio.tokenizers import load as load_tokenizer
from rlpipe.models.learner import learner
from rlpipe.models.recompute import recompute
from rlpipe.models.runtime import prepare_torch
from rlpipe.stages.base import Stage
from rlpipe.training.batching import Batching


@dataclass(frozen=True)
class Bench:
    """A stage's device, tokenizer and way of batching."""

    stage: Stage
    device: torch.device
    tokenizer: PreTrainedTokenizerBase
    batching: Batching

    def learner(self, model: PreTrainedModel, *, scorer: bool = False) -> nn.Module:
        """What is trained of `model`: all of it, or an adapter on it. Raises: ModelError."""
        return learner(self.whole(model), self.stage.params.model.adapter, scorer=scorer)

    def whole(self, model: PreTrainedModel) -> PreTrainedModel:
        """`model`, all of which is trained. Raises: ModelError if its layers cannot be computed again where asked."""
        if self.stage.params.runtime.gradient_checkpointing:
            recompute(model)
        return model


def bench(stage: Stage, tokenizer_at: str | Path, seed: int) -> Bench:
    """Fix determinism, then load the tokenizer. Raises: ModelError, ConfigError."""
    runtime = stage.params.runtime
    device = prepare_torch(runtime, seed)
    tokenizer = load_tokenizer(tokenizer_at)
    assert isinstance(tokenizer.pad_token_id, int), "load_tokenizer sees to it"
    batching = Batching(tokenizer.pad_token_id, device, runtime.dtype, runtime.micro_batch_tokens)
    return Bench(stage, device, tokenizer, batching)
