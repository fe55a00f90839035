"""Every section of `params.yaml` as a type. No field has a default: the file is the only home of a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer, model_validator

from rlpipe.errors import nearest

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

# A component's name becomes part of a metric's; these would be `reward/score_mean` and its like.
_COMPONENT = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("score", "gold", "total")


class Section(BaseModel):
    """Strict: no unknown key, no silent conversion, no change after load."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Runtime(Section):
    slots: Count
    threads: Count
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    micro_batch_tokens: Count
    checkpoint_every: Count


class Tracking(Section):
    uri: str
    experiment: str


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


class Rollout(Section):
    engine: Literal["transformers"]
    temperature: Positive
    top_k: Count | None
    top_p: OpenShare | None
    min_p: OpenShare | None
    max_new_tokens: Count
    batch_size: Count
    token_budget: Count | None


class JudgeRequest(Section):
    """What an OpenAI-compatible server is asked for; see `rewards.judges.settings.Endpoint`."""

    model: str
    temperature: NonNegative | None
    max_tokens: Count
    token_field: Literal["max_tokens", "max_completion_tokens"]
    structure: Literal["json_schema", "choice", "none"]
    system_role: bool
    extra: dict[str, Any]


class Judge(Section):
    """All that a judgment depends on.

    Attributes:
        kind: `embedded` is models/judge, which the stage `judge` trains; `local` any causal language model; `openai`
            a server; `rubric` a program; `none` for a run that asks nobody.
        name_or_path: of the local judge, a hub id or a folder.
        openai: of the judge behind a server; where and how it is called stands in `judge_calls`.
        known: a folder of files of judgments made elsewhere.
    """

    kind: Literal["embedded", "local", "openai", "rubric", "none"]
    name_or_path: str | None
    openai: JudgeRequest | None
    fence_key: str
    reasoned: bool
    top: Annotated[int, Field(ge=2)]
    known: str
    canary_prompts: CountOrZero

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Judge:
        if self.kind == "local" and self.name_or_path is None:
            raise ValueError("kind local needs name_or_path, a hub id or a folder; set it")
        if self.kind == "openai" and self.openai is None:
            raise ValueError("kind openai needs the section openai (model, temperature, ...); set it")
        return self


class JudgeCalls(Section):
    """How a judge is called: nothing here changes what it answers. See `rewards.judges.settings.Endpoint`."""

    replay: bool
    trace: bool
    base_url: str | None
    api_key_env: str | None
    concurrency: Count
    timeout_s: Positive
    retries: CountOrZero
    backoff_s: NonNegative
    backoff_limit_s: NonNegative
    breaker: Count
    prompt_price: NonNegative
    completion_price: NonNegative


class Optim(Section):
    """AdamW with a linear warm-up from 0, then the schedule down to 0 (constant stays)."""

    lr: Positive
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: CountOrZero
    weight_decay: NonNegative
    max_grad_norm: Positive


class Supervised(Section):
    """A trainer over fixed rows: `steps` optimizer steps of `batch_size` rows each."""

    steps: Count
    batch_size: Count
    optim: Optim


class RewardPart(BaseModel):
    """A component's part in a reward; a bare number is its weight.

    Attributes:
        weight: what the score is multiplied with in the total; 0 only logs it, or lets it be a gate.
        gate: another component of the same reward; where that one scores less than `gate_min`, this one is not
            asked and counts as 0.
        norm: subtract the mean and divide by the spread of the scores given together: of the whole batch, or of
            each prompt's own samples.
        clip: bounds put on the score after that.
        function: `module:function` of a component of the user's own, and `sha256` how its file begins to hash.
    Every other key is an option of the component.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    weight: Finite
    gate: str | None = None
    gate_min: Finite = 1.0
    norm: Literal["batch", "group"] | None = None
    clip: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    function: str | None = None
    sha256: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_a_weight(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"weight": value}
        if not isinstance(value, Mapping):
            raise ValueError("expected a weight, or {weight: ..., gate: ..., ...}")
        return value

    @model_validator(mode="after")
    def _bounds_in_order(self) -> RewardPart:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip {self.clip}: the first bound must be the lower one")
        if "gate_min" in self.model_fields_set and self.gate is None:
            raise ValueError(f"gate_min {self.gate_min:g} without a gate; name the component that gates")
        return self

    @model_serializer
    def _as_written(self) -> Any:
        written = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return self.weight if self.model_fields_set == {"weight"} else written | self.options

    @property
    def options(self) -> dict[str, Any]:
        """The component's own options, as written."""
        return dict(self.model_extra or {})


def gate_order(gates: Mapping[str, str | None]) -> list[str]:
    """The components in an order in which each stands behind its gate. Raises: ValueError on a circle."""
    try:
        return list(TopologicalSorter({name: [gate] if gate else [] for name, gate in gates.items()}).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ValueError(f"the gates go in a circle, {circle}; remove one of them") from None


def _fitting_parts(parts: dict[str, RewardPart]) -> dict[str, RewardPart]:
    for name, part in parts.items():
        if not _COMPONENT.fullmatch(name) or name in _TAKEN:
            raise ValueError(
                f"component {name!r}: a name is lower-case letters, digits and _, and none of {', '.join(_TAKEN)}, "
                "because metrics are named after it; rename it"
            )
        if part.gate is not None and part.gate not in parts:
            raise ValueError(
                f"{name}.gate={part.gate}: no such component in this reward; add it (with weight 0 if it is only a "
                f"gate).{nearest(part.gate, parts)}"
            )
    gate_order({name: part.gate for name, part in parts.items()})
    return parts


Composition = Annotated[dict[str, RewardPart], Field(min_length=1), AfterValidator(_fitting_parts)]


class Rewards(Section):
    """What holds for every reward; `max_missing` is the share of a batch that may come back without a score."""

    max_missing: Share


class Pairs(Section):
    """A set of preference pairs.

    Attributes:
        samples_from: the model whose samples are compared, where the source is policy.
        labels_from: what the labels are made from, for DVC: data/prepared, or models/judge where the judge labels.
        principles_from: `constitution.principles` where the judge compares by them, else data/prepared.
        reward: of a prompt's samples the best is paired with the worst by it; null lets the judge choose between
            two samples at a time, in both orders.
    """

    source: Literal["policy", "dataset", "none"]
    samples_from: str
    labels_from: str
    principles_from: str
    reward: Composition | None
    samples_per_prompt: Annotated[int, Field(ge=2)]
    token_budget: Count | None
    heldout_fraction: OpenShare

    @model_validator(mode="after")
    def _labels_come_from_who_gives_them(self) -> Pairs:
        judged = self.reward is None or "judge" in self.reward
        if judged == (self.labels_from == "data/prepared"):
            raise ValueError(
                f"labels_from {self.labels_from}: {'a judge' if judged else 'a verifier'} labels here, from "
                f"{'models/judge' if judged else 'data/prepared'}; set that, or change reward"
            )
        return self


class Constitution(Section):
    """Critique and revision (arXiv:2212.08073) by the principles in a file.

    Attributes:
        source: `policy` draws a response of the model `samples_from` to each of the first `prompts` tasks, and the
            judge criticises and revises it in `rounds` rounds; `none` for a run that does without.
        principles: a YAML file.
        temperature, max_new_tokens: of the judge's texts; a server keeps the temperature of `judge.openai`.
    """

    source: Literal["policy", "none"]
    samples_from: str
    principles: str
    prompts: Count
    rounds: Count
    temperature: NonNegative
    max_new_tokens: Count


class FineTuning(Supervised):
    """SFT. It has a seed of its own, as the data have: all that `Params.seed` varies starts from one model."""

    seed: CountOrZero


class RewardModel(Supervised):
    """A reward model: learns from the set of pairs `learns_from`, from the weights of `starts_from`."""

    learns_from: str
    starts_from: str
    temperature: Positive
    margin_coef: NonNegative
    centring_coef: NonNegative


class ProcessRewardModel(Supervised):
    source: Literal["policy", "none"]
    samples_per_prompt: Count
    heldout_fraction: OpenShare


class JudgeModel(Supervised):
    """The embedded judge's training: what `labels` says of the SFT policy's samples.

    `principles_from` is data/prepared for a judge that learns verdicts alone, or `constitution.principles`, which it
    then learns to criticise, revise and compare by; `max_length` is the tokens of a question and its reply;
    `pass_threshold` the least score that counts as right.
    """

    labels: str
    principles_from: str
    pass_threshold: float
    samples_per_prompt: Count
    heldout_fraction: OpenShare
    max_length: Annotated[int, Field(ge=4)]


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


class Evaluate(Section):
    models: Annotated[list[str], Field(min_length=1)]
    reward: str
    pass_threshold: float
    tasks: Count


class Report(Section):
    samples: CountOrZero


class Params(Section):
    seed: CountOrZero
    runtime: Runtime
    tracking: Tracking
    data: Data
    model: Model
    rollout: Rollout
    rewards: Rewards
    judge: Judge
    judge_calls: JudgeCalls
    sft: FineTuning
    judge_model: JudgeModel
    constitution: Constitution
    pairs: dict[str, Pairs]
    reward_model: dict[str, RewardModel]
    process_reward_model: ProcessRewardModel
    policy: dict[str, Policy]
    watch: Watch
    evaluate: Evaluate
    report: Report
    recipe: Recipe
