"""LoRA through peft. Imported only when an adapter is asked for: peft takes seconds to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from rlpipe.config.schema import Adapter


def with_adapter(model: PreTrainedModel, adapter: Adapter, *, scorer: bool) -> PeftModel:
    """`model` with a fresh adapter on all linear layers; only the adapter (and a scorer's head) learns."""
    return get_peft_model(
        model,
        LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules="all-linear",
            task_type=TaskType.SEQ_CLS if scorer else TaskType.CAUSAL_LM,
        ),
    )


def load_merged(auto: Any, folder: Path, **options: Any) -> PreTrainedModel:
    """The model that `folder`'s adapter belongs to, the adapter folded into its weights."""
    name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    base = auto.from_pretrained(name, dtype=torch.float32, **options)
    return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
