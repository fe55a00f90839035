"""Where and how stages run, and what is measured at the end."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlpipe.config.schema.fields import Count, CountOrZero, Section


class Runtime(Section):
    slots: Count
    threads: Count
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    micro_batch_tokens: Count
    gradient_checkpointing: bool
    checkpoint_every: Count


class Tracking(Section):
    uri: str
    experiment: str


class Evaluate(Section):
    models: Annotated[list[str], Field(min_length=1)]
    reward: str
    pass_threshold: float
    tasks: Count


class Report(Section):
    samples: CountOrZero
