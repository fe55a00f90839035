"""Records that cross rooms.

Shape suffixes: P prompts, G samples per prompt, B sequences, T response positions, L whole-sequence
positions, V vocabulary. One mask polarity everywhere: True counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Metrics = Mapping[str, float]


# ---- rows -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demonstration:
    """One row of supervised data."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Task:
    """One prompt to learn from or to be evaluated on.

    Attributes:
        answer: the gold answer; empty where none exists.
        columns: what else the row has and a reward may need, such as tests; plain JSON values by name.
    """

    id: str
    prompt: str
    answer: str
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preference:
    """One pair of responses to the same prompt, the first preferred; `margin` is by how much, 0 where nobody said."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    margin: float = 0.0


# ---- sampling ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; the three limits at None draw from the whole distribution.

    Attributes:
        top_k: only the k most likely tokens.
        top_p: only the most likely tokens that together have this probability.
        min_p: only tokens at least this share as likely as the most likely one.
    """

    temperature: float
    max_new_tokens: int
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None


@dataclass(frozen=True)
class Request:
    """One completion to draw.

    `stream` is the address of the sample's own random stream, (seed, step, prompt, sample): the same
    address draws the same uniforms whatever else is in the batch.
    """

    prompt_ids: tuple[int, ...]
    stream: tuple[int, int, int, int]


@dataclass(frozen=True)
class Completion:
    """What the sampler drew: token in, token out, never decoded and re-encoded before training.

    `ids` ends with the end-of-sequence token when `finished`; `logps[t]` (nats) is the sampler's own
    log-prob of `ids[t]` at the sampling temperature, in the whole distribution.
    """

    ids: tuple[int, ...]
    logps: tuple[float, ...]
    finished: bool


@dataclass(frozen=True)
class Scored:
    """A completion's score per reward component, weighted total, or why it has none.

    `total` is None exactly when `missing` says why; a missing score is never 0. `components` are scores as they were
    given, `parts` what each adds to the total: after norm, clip and weight.
    """

    total: float | None
    components: Metrics
    missing: str
    parts: Metrics = field(default_factory=dict)


# ---- tensors ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PaddedBatch:
    """Prompts and responses of B sequences; every response starts at the same column.

        columns   0 ............ P-1 | P ............. P+T-1
        row b     pad .. pad prompt  | response  pad .. pad

    Attributes:
        ids_BL: [B, P+T] int64 token ids.
        attention_BL: [B, P+T] bool, False on padding.
        position_BL: [B, P+T] int64, counted from each row's first token; 0 on the padding before it, and held
            at the last token's on the padding behind.
        response_ids_BT: [B, T] int64, the last T columns of ids_BL.
        response_mask_BT: [B, T] bool, False on padding.
    """

    ids_BL: Tensor
    attention_BL: Tensor
    position_BL: Tensor
    response_ids_BT: Tensor
    response_mask_BT: Tensor

    @property
    def prompt_width(self) -> int:
        """P, the tokens of the longest prompt: the column where every response starts."""
        return self.ids_BL.shape[1] - self.response_ids_BT.shape[1]

    def __len__(self) -> int:
        return len(self.ids_BL)

    def by_prompt(self) -> dict[tuple[int, ...], list[int]]:
        """Each different prompt's real tokens -> the rows that answer it, in the order in which they first come."""
        length_B = self.attention_BL.sum(1) - self.response_mask_BT.sum(1)
        rows: dict[tuple[int, ...], list[int]] = {}
        prompts = zip(self.ids_BL[:, : self.prompt_width].tolist(), length_B.tolist(), strict=True)
        for row, (ids, length) in enumerate(prompts):
            rows.setdefault(tuple(ids[self.prompt_width - length :]), []).append(row)
        return rows

    def rows(self, index: Tensor | slice | list[int]) -> PaddedBatch:
        """Some of the sequences, padding unchanged."""
        return PaddedBatch(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


# ---- losses -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Totals:
    """How much one optimizer step has, over all its micro-batches, so that splitting cannot change a mean."""

    tokens: int
    sequences: int


@dataclass(frozen=True)
class TokenLoss:
    """A policy loss, unreduced.

    Attributes:
        loss_BT: [B, T], 0 where masked, carries grad.
        metrics_BT: detached per-token values, to be averaged over tokens by the caller.
        ratio_BT: [B, T] detached, the ratio that the loss works with; 1 where masked.
        weight_BT: [B, T] detached, the importance weight in force after its cap; None where the loss has none.
    """

    loss_BT: Tensor
    metrics_BT: Mapping[str, Tensor]
    ratio_BT: Tensor
    weight_BT: Tensor | None = None


@dataclass(frozen=True)
class ValueLoss:
    """A critic's loss, unreduced: 0 where masked; `metrics_BT` per-token values, to be averaged by the caller."""

    loss_BT: Tensor
    metrics_BT: Mapping[str, Tensor]


@dataclass(frozen=True)
class PairLogps:
    """Log-probs of a batch of pairs, summed over each response's real tokens.

    Attributes:
        chosen_B, rejected_B: [B] nats, the policy in training, carry grad.
        chosen_ref_B, rejected_ref_B: [B] nats, the reference, no grad; zeros where nothing reads them.
        chosen_length_B, rejected_length_B: [B] tokens, in floating point.
        kl_baseline: scalar nats >= 0, the policy's mean log-ratio to the reference on responses to other prompts;
            0 where nothing reads it.
    """

    chosen_B: Tensor
    rejected_B: Tensor
    chosen_ref_B: Tensor
    rejected_ref_B: Tensor
    chosen_length_B: Tensor
    rejected_length_B: Tensor
    kl_baseline: Tensor


@dataclass(frozen=True)
class PairLoss:
    """`loss_B` unreduced; `metrics_B` detached per-pair values, to be averaged by the caller."""

    loss_B: Tensor
    metrics_B: Mapping[str, Tensor]


@dataclass(frozen=True)
class Advantage:
    """`adv_BT` weighs the policy's tokens; `return_BT` is the critic's target. Both without grad, 0 where masked."""

    adv_BT: Tensor
    return_BT: Tensor
