"""What tests of models look at whose modules' forward passes are replaced by ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

SHAPE = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
IDS = torch.tensor([[1, 2, 3]])


def computed_by(model: nn.Module, forward: Callable[..., Any]) -> list[nn.Module]:
    """The modules whose forward pass is `forward`."""
    return [module for module in model.modules() if getattr(module.forward, "__func__", None) is forward]
