"""LoRA through peft. Imported only when an adapter is asked for: peft takes seconds to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlpipe.config.schema import Adapter
from rlpipe.models.own import take_over
from rlpipe.ops.lora import adapted
from rlpipe.ops.products import widens


def with_adapter(model: PreTrainedModel, adapter: Adapter, *, scorer: bool) -> PeftModel:
    """`model` with a fresh adapter on all linear layers; only the adapter (and a scorer's head) learns."""
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear",
        task_type=TaskType.SEQ_CLS if scorer else TaskType.CAUSAL_LM,
    )
    whole: PeftModel = get_peft_model(model, config)
    take_over(whole, _forward, lambda module: type(module) is Linear)
    return whole


def load_merged(auto: Any, folder: Path, **options: Any) -> PreTrainedModel:
    """The model that `folder`'s adapter belongs to, the adapter folded into its weights."""
    name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    base = auto.from_pretrained(name, dtype=torch.float32, **options)
    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()


def _forward(map_: Any, states: Tensor, *args: Any, **options: Any) -> Tensor:
    """What peft computes, by `adapted` where no more is asked for than one adapter on a frozen map."""
    if args or options or not _is_plain(map_) or widens(states.device.type):
        own: Tensor = type(map_).forward(map_, states, *args, **options)
        return own
    (name,) = map_.active_adapters
    base, down, up = map_.base_layer, map_.lora_A[name], map_.lora_B[name]
    return adapted(states, base.weight, base.bias, down.weight, up.weight, scale=map_.scaling[name])


def _is_plain(map_: Any) -> bool:
    """Whether one adapter is at work, of the common kind, without dropout."""
    at_work = map_.active_adapters
    if map_.disable_adapters or map_.merged or len(at_work) != 1:
        return False
    (name,) = at_work
    return (
        name not in map_.lora_variant
        and (isinstance(map_.lora_dropout[name], nn.Identity) or not map_.training)
        and map_.lora_B[name].bias is None
        and not any(p.requires_grad for p in map_.base_layer.parameters())
    )
