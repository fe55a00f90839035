"""The watch over reward hacking."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from rlpipe.config.schema.fields import Count, CountOrZero, NonNegative, Section
from rlpipe.config.schema.rewarding import Composition


class Sentinel(Section):
    """What is done once a reading goes beyond `limit`: nothing, a line in the log, or the end of training."""

    limit: NonNegative
    action: Literal["off", "warn", "stop"]


class Sentinels(Section):
    """One for each reading of the watch; `docs/watch.md` has their formulas and how each limit is understood."""

    hacking_gap: Sentinel
    heldout_drop: Sentinel
    length: Sentinel
    repetition: Sentinel
    format_tricks: Sentinel
    dominance: Sentinel
    canary_pass_rate: Sentinel

    @model_validator(mode="after")
    def _a_ratio_leaves_room(self) -> Sentinels:
        if self.length.limit <= 1:
            raise ValueError(f"length.limit {self.length.limit:g} must exceed 1: it is a factor, up or down")
        return self


class Watch(Section):
    """Reward hacking watch: every policy run is measured by a reward that it is not trained on."""

    heldout: Composition
    window: Count
    keep: Literal["last", "best"]
    repetition_ngram: Count
    canary_prompts: CountOrZero
    sentinels: Sentinels
