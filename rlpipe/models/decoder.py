"""A causal language model as two parts: the decoder that makes hidden states, the head that makes logits of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlpipe.ops.head import Head, logits_of

_log = logging.getLogger(__name__)

# How far apart (in units of the largest logit) the two ways to a logit may be: rounding of the type, and some more.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# What a model's class makes of hidden states does not change while it lives: looked at once.
_separable: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Parts:
    """`decoder` gives `last_hidden_state`; `head` makes the model's own logits of it."""

    decoder: nn.Module
    head: Head


def parts_of(model: nn.Module) -> Parts | None:
    """The two parts, under LoRA or not; None, said once, for a model that makes its logits in another way.

    Whether the head is all that stands between hidden states and logits is tried out on two tokens, not believed.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    parts = _claimed(inner)
    if inner not in _separable:
        _separable[inner] = parts is not None and _agree(inner, parts)
        if not _separable[inner]:
            _log.warning(
                "%s makes its logits in a way of its own: they are all held at once, which takes time and memory.",
                type(inner).__name__,
            )
    return parts if _separable[inner] else None


def _claimed(inner: Any) -> Parts | None:
    """The parts by the names that transformers gives them."""
    decoder, linear, config = inner.base_model, inner.get_output_embeddings(), inner.config.get_text_config()
    if decoder is inner or type(linear) is not nn.Linear:
        return None
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    return Parts(decoder, Head(linear.weight, linear.bias, float(scale), softcap))


@torch.no_grad()
def _agree(inner: nn.Module, parts: Parts) -> bool:
    head = parts.head
    ids_1L = torch.tensor([[0, len(head.weight_VH) - 1]], device=head.weight_VH.device)
    with as_in_evaluation(inner), torch.autocast(ids_1L.device.type, enabled=False):
        whole_1LV: Tensor = inner(input_ids=ids_1L, use_cache=False).logits
        hidden_1LH: Tensor = parts.decoder(input_ids=ids_1L, use_cache=False).last_hidden_state
        if hidden_1LH.shape[-1] != head.weight_VH.shape[-1]:
            return False
        gap = (whole_1LV - logits_of(hidden_1LH, head)).abs().max().item()
    return gap <= _TOLERANCE[whole_1LV.dtype] * whole_1LV.abs().max().item()


@contextmanager
def as_in_evaluation(model: nn.Module) -> Iterator[None]:
    """Without dropout, which would also take numbers from the run's random stream."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
