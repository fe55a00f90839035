"""What is learned from, and the model that learns it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlpipe.config.schema.fields import Count, CountOrZero, OpenShare, Section, Share


class Arithmetic(Section):
    operands: Annotated[int, Field(ge=2)]
    max_operand: Count
    sft_rows: Count
    rl_rows: Count
    heldout_rows: Count
    short_rate: Share
    slip_rate: Share

    @model_validator(mode="after")
    def _faults_fit(self) -> Arithmetic:
        if self.short_rate + self.slip_rate > 1:
            raise ValueError(
                f"short_rate {self.short_rate} + slip_rate {self.slip_rate} exceed 1: "
                "a demonstration has at most one fault"
            )
        if self.short_rate > 0 and self.operands < 3:
            raise ValueError(f"short_rate {self.short_rate} needs operands >= 3: two have no step to leave out")
        return self


class Data(Section):
    seed: CountOrZero
    source: Literal["arithmetic", "gsm8k", "instruct", "rows"]
    path: str
    hub: str | None
    heldout_fraction: OpenShare
    max_quarantine_rate: Share
    arithmetic: Arithmetic


class Adapter(Section):
    """LoRA on all linear layers (arXiv:2106.09685)."""

    rank: Count
    alpha: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Scratch(Section):
    tokenizer: Literal["characters", "bpe"]
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count

    @model_validator(mode="after")
    def _heads_divide(self) -> Scratch:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_attention_heads "
                f"{self.num_attention_heads}: each head takes an equal share"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}: heads share keys in equal groups"
            )
        return self


class Model(Section):
    name_or_path: str | None
    adapter: Adapter | None
    max_length: Annotated[int, Field(ge=4)]
    scratch: Scratch
