"""The stages that learn before any policy does, and what they learn from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlpipe.config.schema.fields import Count, CountOrZero, NonNegative, OpenShare, Positive, Section
from rlpipe.config.schema.rewarding import Composition


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
