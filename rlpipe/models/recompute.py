"""Gradient checkpointing: a layer keeps its input alone, and its inside is computed again on the way back.

Source: arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from rlpipe.errors import ModelError
from rlpipe.models.attention import attention_as


def recompute(model: nn.Module) -> None:
    """From now on every decoder layer is computed again on the way back. Raises: ModelError if no layer can be."""
    layers = _layers(model)
    if not layers:
        raise ModelError(
            f"runtime.gradient_checkpointing=true: {type(model).__name__} has no layers that can be computed again. "
            "Set it to false, and lower runtime.micro_batch_tokens instead."
        )
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(_again, model.config)


@contextmanager
def recomputing(decoder: nn.Module) -> Iterator[None]:
    """Within, layers that `recompute` prepared are computed again where there are gradients.

    transformers asks a layer's `training` for that, which here says whether there is dropout; and while it is set, the
    layer keeps no keys and values, so that nothing could be sampled.
    """
    idle = [layer for layer in _layers(decoder) if layer.gradient_checkpointing and not layer.training]
    for layer in idle if torch.is_grad_enabled() else ():
        layer.training = True
    try:
        yield
    finally:
        for layer in idle:
            layer.training = False


def _again(config: Any, layer: Callable[..., Any], *inputs: Any) -> Any:
    """`layer` of its inputs; the second time with the attention of the first."""
    name = config._attn_implementation

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), attention_as(config, name)

    return checkpoint(layer, *inputs, use_reentrant=False, context_fn=contexts)


def _layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
