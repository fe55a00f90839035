"""Small modules on top of a policy's body."""

from __future__ import annotations

import torch
from torch import nn

from rlpipe.errors import ModelError


def new_value_head(policy: nn.Module, device: torch.device) -> nn.Linear:
    """A scalar head at zero on the policy's last hidden state: the first values say nothing.

    Raises: ModelError for a model whose config names no hidden size.
    """
    size = getattr(policy.config, "hidden_size", None)
    if not isinstance(size, int):
        raise ModelError(f"{type(policy).__name__}: its config has no hidden_size. Set baseline: critic.")
    head = nn.Linear(size, 1, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
