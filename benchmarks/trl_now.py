"""TRL 1.16's side: its trainers with the settings that its users take for speed, on the same weights and rows.

No gradient checkpointing, no dropout, AdamW as transformers picks it (fused), no logging, no saving, batches as large
as named below. What is set against TRL's defaults is what makes both sides the same step: learning rate, AdamW's second
beta, no clip, and GRPO's mean over sequences (`loss_type="grpo"`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from benchmarks import ours
from benchmarks.forced import force
from benchmarks.gradients import gradients_of
from benchmarks.ours import Drawn, Took
from benchmarks.pairs import now
from benchmarks.shapes import Groups, Pair, Row, numbers
from rlpipe.models.load import load_policy


def grpo(work: Groups, drawn: Sequence[Drawn], *, lr: float, size: int) -> Took:
    """A step of GRPO on each of the given steps' completions; `size` of them in a forward pass."""
    model: Any = ours.plain(ours.policy_of(work))
    ends = sorted(work.eos)
    model.generation_config.eos_token_id = ends
    force(model, drawn, ends)
    tokenizer = numbers(int(model.config.vocab_size), max(work.eos))
    settings = GRPOConfig(
        **_common(lr, len(drawn), size, work.completions, bf16=work.dtype == "bfloat16"),
        num_generations=work.group,
        max_completion_length=work.longest,
        beta=ours.KL_COEF["grpo"],
        epsilon=0.2,
        loss_type="grpo",
        temperature=1.0,
        shuffle_dataset=False,
    )
    prompts = [tokenizer.decode(list(prompt)) for prompt in work.prompts]
    trainer = GRPOTrainer(
        model,
        reward_funcs=_reward,
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )
    return _trained(trainer)


def sft(folder: Path, rows: Sequence[Row], *, steps: int, lr: float, packed: bool, size: int) -> Took:
    """Steps of supervised fine-tuning on all rows: padded, or packed (`bfd`, the rows apart by their positions).

    `size` rows, or packs, in a forward pass; packs side by side are one row with one large mask.
    """
    dataset = Dataset.from_dict(
        {
            "input_ids": [[*prompt, *response] for prompt, response in rows],
            "completion_mask": [[0] * len(prompt) + [1] * len(response) for prompt, response in rows],
        }
    )
    model = ours.plain(load_policy(folder, ours.DEVICE))
    # There are fewer packs than rows, and an epoch's end ends a step.
    settings = SFTConfig(
        **_common(lr, steps, size, len(rows)),
        completion_only_loss=True,
        packing=packed,
        max_length=1024,
    )
    trainer = SFTTrainer(model, args=settings, train_dataset=dataset, processing_class=_numbers(model))
    return _trained(trainer)


def dpo(folder: Path, pairs: Sequence[Pair], *, steps: int, lr: float) -> Took:
    """Steps of DPO on all pairs at once."""
    model = ours.plain(load_policy(folder, ours.DEVICE))
    tokenizer = _numbers(model, end=pairs[0][0][1][-1])
    dataset = Dataset.from_dict(
        {
            "prompt": [tokenizer.decode(chosen[0]) for chosen, _ in pairs],
            "chosen": [" " + tokenizer.decode(chosen[1]) for chosen, _ in pairs],
            "rejected": [" " + tokenizer.decode(rejected[1]) for _, rejected in pairs],
        }
    )
    settings = DPOConfig(**_common(lr, steps, len(pairs), len(pairs)), beta=0.1)
    return _trained(DPOTrainer(model, args=settings, train_dataset=dataset, processing_class=tokenizer))


def reward_model(folder: Path, pairs: Sequence[Pair], *, steps: int, lr: float) -> Took:
    """Steps of a reward model on all pairs at once."""
    model: Any = ours.plain(ours.scorer_of(folder))
    dataset = Dataset.from_dict(
        {
            "chosen_ids": [[*prompt, *response] for (prompt, response), _ in pairs],
            "rejected_ids": [[*prompt, *response] for _, (prompt, response) in pairs],
        }
    )
    settings = RewardConfig(**_common(lr, steps, len(pairs), len(pairs)))
    return _trained(RewardTrainer(model, args=settings, train_dataset=dataset, processing_class=_numbers(model)))


class Clock(TrainerCallback):
    """When each step began and ended."""

    def __init__(self) -> None:
        self.began, self.ended = 0.0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended = now()


def _reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float | None]:
    return [ours.reward(ids) for ids in completion_ids]


def _trained(trainer: Any) -> Took:
    clock = Clock()
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    with gradients_of(trainer.model) as gradients:
        trainer.train()
    return Took(clock.ended - clock.began, clock.ended, gradients)


def _numbers(model: Any, end: int | None = None) -> Any:
    vocabulary = int(model.config.vocab_size)
    return numbers(vocabulary, vocabulary - 1 if end is None else end)


def _common(lr: float, steps: int, size: int, batch: int, *, bf16: bool = False) -> dict[str, Any]:
    return {
        "output_dir": tempfile.gettempdir(),
        "learning_rate": lr,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "max_grad_norm": 1e9,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": batch // size,
        "max_steps": steps,
        "bf16": bf16,
        "gradient_checkpointing": False,
        "use_cpu": ours.DEVICE.type == "cpu",
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
