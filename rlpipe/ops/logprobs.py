"""Log-probs of given tokens and the entropy of their distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def selective_log_softmax(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Log-prob (nats, at least float32) of each `ids_BT[b, t]` under softmax of `logits_BTV[b, t]`.

    Computed as x_i - logsumexp(x), which never materialises the whole log-softmax.
    """
    logits_BTV = _at_least_float32(logits_BTV)
    chosen_BT = logits_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
    return chosen_BT - logits_BTV.logsumexp(-1)


def entropy(logits_BTV: Tensor) -> Tensor:
    """[B, T] entropy in nats, at least float32:  H = logsumexp(x) - sum_v p_v x_v."""
    logits_BTV = _at_least_float32(logits_BTV)
    return logits_BTV.logsumexp(-1) - (torch.softmax(logits_BTV, -1) * logits_BTV).sum(-1)


def _at_least_float32(logits_BTV: Tensor) -> Tensor:
    return logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
