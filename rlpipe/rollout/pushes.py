"""A live model's weights as files, for an engine that holds a copy of its own."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging


def adapted(model: nn.Module) -> bool:
    """Whether only an adapter on the model is trained."""
    return hasattr(model, "peft_config")


def adapter_rank(model: nn.Module) -> int:
    """The rank of its adapter."""
    return int(next(iter(model.peft_config.values())).r)  # type: ignore[operator]


@contextmanager
def whole_weights(model: nn.Module, folder: Path) -> Iterator[Path]:
    """`folder` with the model's config and weights, an adapter left out; gone after the block.

    Tied embeddings are written as two matrices: on a CPU, vLLM does not see that the second is new when it reads the
    first one anew, and goes on with the old.
    """
    base: Any = model.get_base_model() if adapted(model) else model  # type: ignore[operator]
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in base.state_dict().items() if _own(name)}
    with _fresh(folder), _untied(base, state), _no_progress_bar():
        base.save_pretrained(folder, state_dict=state)
        yield folder


@contextmanager
def adapter_weights(model: nn.Module, folder: Path) -> Iterator[Path]:
    """`folder` with the model's adapter; gone after the block."""
    with _fresh(folder):
        model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
        yield folder


def _own(name: str) -> bool:
    """Whether a tensor belongs to the model below the adapter."""
    return ".lora_" not in name


@contextmanager
def _untied(base: Any, state: dict[str, Tensor]) -> Iterator[None]:
    config = base.config
    if not config.tie_word_embeddings:
        yield
        return
    output = next(name for name, module in base.named_modules() if module is base.get_output_embeddings())
    state[f"{output}.weight"] = base.get_output_embeddings().weight.detach().clone()
    base.config = copy.deepcopy(config)
    base.config.tie_word_embeddings = False
    try:
        yield
    finally:
        base.config = config


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """A line for each file would drown a training's own."""
    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


@contextmanager
def _fresh(folder: Path) -> Iterator[None]:
    """An empty folder, whatever a killed process left there; gone after the block."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with torch.no_grad():
            yield
    finally:
        shutil.rmtree(folder)
