"""Policy sections: budgets, the numbers of algorithms, the recipe of new sections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlpipe.config.schema.fields import Count, NonNegative, OpenShare, Positive, Section, Share
from rlpipe.config.schema.rewarding import Composition
from rlpipe.config.schema.training import Optim, Supervised


class RLBudget(Section):
    """What an online policy section says beside its algorithm's numbers. What is left out is off."""

    reward: Composition
    steps: Count
    prompts_per_step: Count
    group_size: Count
    epochs: Count
    minibatches: Count
    optim: Optim
    token_budget: Count | None = None
    reward_norm: Literal["step", "running"] | None = None
    critic_warmup_steps: Count | None = None
    reference_refresh_steps: Count | None = None
    resample_rounds: Count | None = None


class OfflineBudget(Supervised):
    """What a section says that learns from pairs.

    Every `measure_every` steps, `measure_prompts` completions are drawn and scored, so that reward stands
    against KL for these algorithms too. They are never trained on.
    """

    measure_every: Count
    measure_prompts: Count


class DistillationBudget(Section):
    """What a section says that learns from a teacher; measured as in `OfflineBudget`."""

    steps: Count
    prompts_per_step: Count
    group_size: Count
    optim: Optim
    measure_every: Count
    measure_prompts: Count
    token_budget: Count | None = None


class Numbers(Section):
    """The hyper-parameters an algorithm may ask for, each with its range. Which of them: see `algos/`."""

    kl_coef: NonNegative | None = None
    kl_threshold: NonNegative | None = None
    kl_target: Positive | None = None
    kl_gain: Annotated[float, Field(gt=0, le=1)] | None = None
    clip_low: OpenShare | None = None
    clip_high: Positive | None = None
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    is_cap: Positive | None = None
    replay_steps: Count | None = None
    replay_updates: Count | None = None
    gamma: Share | None = None
    lam: Share | None = None
    td_steps: Count | None = None
    baseline_decay: OpenShare | None = None
    value_coef: NonNegative | None = None
    value_clip: Positive | None = None
    entropy_coef: NonNegative | None = None
    reward_scale: Positive | None = None
    reward_clip: Positive | None = None
    beta: Positive | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    tau: Positive | None = None
    target_margin: NonNegative | None = None
    odds_weight: NonNegative | None = None
    desirable_weight: Positive | None = None
    undesirable_weight: Positive | None = None
    jsd_beta: OpenShare | None = None
    distill_temperature: Positive | None = None
    distill_alpha: Share | None = None


class Recipe(Section):
    """What `rlpipe run --algos` and `rlpipe bakeoff` write into a new policy section beside its algorithm's numbers.

    `numbers` holds, by algorithm, what this task wants otherwise than the algorithm's source recommends.
    """

    online: dict[str, Any]
    offline: dict[str, Any]
    distillation: dict[str, Any]
    numbers: dict[str, dict[str, Any]]


class Policy(BaseModel):
    """A policy section before its algorithm is known; `algos.plan` checks the rest against the algorithm."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    algorithm: str
    starts_from: str
    learns_from: str

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but what is named above, as written."""
        return dict(self.model_extra or {})
