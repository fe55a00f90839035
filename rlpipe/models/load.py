"""Build, load and save: anything AutoModelForCausalLM loads, and every checkpoint loads back with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlpipe.config.schema import Scratch
from rlpipe.errors import ModelError
from rlpipe.models.gates import with_own_gates
from rlpipe.models.norms import with_own_norms
from rlpipe.models.products import with_own_products


def build_scratch(
    scratch: Scratch, tokenizer: PreTrainedTokenizerBase, max_length: int, device: torch.device
) -> PreTrainedModel:
    """A Llama-shaped decoder with random weights from torch's current seed.

    Not every model type would do: for some (Qwen2 among them) AutoTokenizer ignores the tokenizer class that was
    saved and puts the type's own pre-tokenizer in front of our vocabulary.
    """
    config = LlamaConfig(
        vocab_size=scratch.vocab_size,
        hidden_size=scratch.hidden_size,
        intermediate_size=scratch.intermediate_size,
        num_hidden_layers=scratch.num_hidden_layers,
        num_attention_heads=scratch.num_attention_heads,
        num_key_value_heads=scratch.num_key_value_heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _placed(LlamaForCausalLM(config), device)


def load_policy(name_or_path: str | Path, device: torch.device) -> PreTrainedModel:
    """A causal language model in float32, in eval mode. A folder with a LoRA adapter loads with it merged.

    Raises: ModelError if nothing there can be loaded.
    """
    return _load(AutoModelForCausalLM, name_or_path, device)


def load_teacher(name_or_path: str | Path, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> PreTrainedModel:
    """A causal language model, frozen, whose tokens are the student's.

    Raises: ModelError if nothing there can be loaded, or its vocabulary is another.
    """
    model = load_policy(name_or_path, device).requires_grad_(False)
    own = AutoTokenizer.from_pretrained(str(name_or_path))
    if own.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"{name_or_path}: the teacher's vocabulary ({len(own)} tokens) is not the student's ({len(tokenizer)}), so "
            "their distributions cannot be compared. Choose a teacher with the same tokenizer."
        )
    return model


def new_critic(name_or_path: str | Path, device: torch.device) -> PreTrainedModel:
    """The decoder of a causal checkpoint under a new scalar head at zero: the first values say nothing.

    Raises: ModelError if nothing there can be loaded, or its architecture has no such head.
    """
    model = load_scorer(name_or_path, device)
    nn.init.zeros_(score_head(model).weight)
    return model


def new_reward_model(name_or_path: str | Path, device: torch.device) -> PreTrainedModel:
    """The decoder of a causal checkpoint under a new scalar head, drawn from N(0, 1 / (hidden + 1)).

    Source of the spread: arXiv:2009.01325, appendix B.1.
    Raises: ModelError if nothing there can be loaded, or its architecture has no such head.
    """
    model = load_scorer(name_or_path, device)
    head = score_head(model)
    nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    return model


def load_scorer(name_or_path: str | Path, device: torch.device) -> PreTrainedModel:
    """A sequence-classification checkpoint with one scalar head, in float32, in eval mode.

    Raises: ModelError if nothing there can be loaded, or its architecture has no such head.
    """
    model = _load(AutoModelForSequenceClassification, name_or_path, device, num_labels=1)
    score_head(model)
    return model


def with_tokens(model: PreTrainedModel, known: int, tokens: int, seed: int) -> PreTrainedModel:
    """`model` with embeddings for the tokens from number `known` to `tokens` - 1, which it has never met.

    They are drawn from N(0, initializer_range), seeded; where input and output are not tied, each has its own.
    transformers would draw them around the mean of the known ones, which here mixes digits, signs and tags.
    """
    if tokens > _rows(model.get_input_embeddings()).shape[0]:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    # One matrix where they are tied.
    matrices = {
        id(matrix): matrix for matrix in map(_rows, (model.get_input_embeddings(), model.get_output_embeddings()))
    }
    with torch.no_grad():
        for matrix in matrices.values():
            fresh = torch.randn(tokens - known, matrix.shape[1], generator=generator)
            matrix[known:tokens] = fresh.to(matrix) * model.config.initializer_range
    return model


def _rows(embeddings: nn.Module) -> Tensor:
    """[tokens, hidden]."""
    weight = embeddings.weight
    assert isinstance(weight, Tensor), "embeddings are a matrix"
    return weight


def score_head(model: nn.Module) -> nn.Linear:
    """The scalar head of a sequence-classification model. Raises: ModelError for an architecture without one."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise ModelError(f"{type(model).__name__} has no linear `score` head. Use a decoder such as Llama or Qwen2.")
    return head


def with_normaliser(model: nn.Module, mean: float, std: float) -> nn.Module:
    """Write into a scorer's config how its raw scores become mean 0 and spread 1 on its training pairs."""
    model.config.rlpipe_score_mean, model.config.rlpipe_score_std = mean, std  # type: ignore[union-attr]
    return model


def normaliser(model: nn.Module) -> tuple[float, float]:
    """(mean, std) of a scorer's raw scores; (0, 1) where none was written, as in a scorer from elsewhere."""
    config = model.config
    return getattr(config, "rlpipe_score_mean", 0.0), getattr(config, "rlpipe_score_std", 1.0)


def save(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights and tokenizer so that the Auto classes load them back."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def _load(auto: Any, name_or_path: str | Path, device: torch.device, **options: Any) -> PreTrainedModel:
    try:
        if (Path(name_or_path) / "adapter_config.json").exists():
            from rlpipe.models.adapter import load_merged

            model = load_merged(auto, Path(name_or_path), **options)
        else:
            model = auto.from_pretrained(str(name_or_path), dtype=torch.float32, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name_or_path}: no model can be loaded there: {error}") from None
    return _placed(model, device)


def _placed(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    nn.Module.to(model, device)
    with_own_norms(model)
    with_own_gates(model)
    with_own_products(model)
    return model.eval()
