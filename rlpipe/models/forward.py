"""From token ids to log-probs and to scores: the only place that calls a model's forward in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlpipe.models.decoder import parts_of
from rlpipe.ops.head import TokenStats, logits_of, token_stats
from rlpipe.ops.logprobs import entropy, selective_log_softmax
from rlpipe.ops.masking import zero_outside
from rlpipe.types import PaddedBatch


@dataclass(frozen=True)
class ResponseStats:
    """What training reads off a forward pass, at the response's positions. All but the hidden states 0 where masked.

    Attributes:
        logp_BT: [B, T] nats, float32: the response's tokens at a temperature.
        plain_logp_BT: [B, T] nats, float32: the same at temperature 1, the model itself.
        entropy_BT: [B, T] nats, float32, untempered.
        greedy_BT: [B, T] bool: no token is more likely.
        hidden_BTH: [B, T, H] the decoder's last hidden state before each response token.
    """

    logp_BT: Tensor
    plain_logp_BT: Tensor
    entropy_BT: Tensor
    greedy_BT: Tensor
    hidden_BTH: Tensor


@dataclass(frozen=True)
class ResponseLogits:
    """[B, T, V] logits of the response positions, for what needs whole distributions, and their hidden states."""

    logits_BTV: Tensor
    hidden_BTH: Tensor

    def log_probs(self) -> Tensor:
        """[B, T, V] nats, float32: the whole distribution, untempered."""
        return torch.log_softmax(self.logits_BTV.float(), -1)

    def stats(self, batch: PaddedBatch, *, temperature: float) -> ResponseStats:
        """The same as `response_stats` of the same forward pass."""
        real_BT, ids_BT = batch.response_mask_BT, batch.response_ids_BT
        logits_BTV = zero_outside(self.logits_BTV, real_BT.unsqueeze(-1)).float()
        plain_BT = selective_log_softmax(logits_BTV, ids_BT)
        logp_BT = plain_BT if temperature == 1.0 else selective_log_softmax(logits_BTV / temperature, ids_BT)
        greedy_BT = logits_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1) == logits_BTV.amax(-1)
        return ResponseStats(
            zero_outside(logp_BT, real_BT),
            zero_outside(plain_BT, real_BT),
            zero_outside(entropy(logits_BTV), real_BT),
            greedy_BT & real_BT,
            self.hidden_BTH,
        )


def response_stats(model: nn.Module, batch: PaddedBatch, *, temperature: float) -> ResponseStats:
    """One forward over prompt and response; the head sees the real response tokens alone, a piece at a time."""
    parts = parts_of(model)
    if parts is None:
        return response_logits(model, batch).stats(batch, temperature=temperature)
    hidden_BTH = _before_response(_hidden(parts.decoder, batch), batch)
    at_N = real_places(batch)
    stats = token_stats(
        hidden_BTH.flatten(0, 1).index_select(0, at_N),
        batch.response_ids_BT.flatten().index_select(0, at_N),
        parts.head,
        temperature=temperature,
    )
    return placed(stats, batch, at_N, hidden_BTH)


def real_places(batch: PaddedBatch) -> Tensor:
    """[N] int64: where in [B, T], laid out in one row, the responses' real tokens stand."""
    return batch.response_mask_BT.flatten().nonzero().squeeze(1)


def placed(stats: TokenStats, batch: PaddedBatch, at_N: Tensor, hidden_BTH: Tensor) -> ResponseStats:
    """The stats of the real tokens, back at their places."""
    mask_BT = batch.response_mask_BT

    def spread(value_N: Tensor) -> Tensor:
        return value_N.new_zeros(mask_BT.numel()).index_copy(0, at_N, value_N).view_as(mask_BT)

    return ResponseStats(
        spread(stats.logp_N),
        spread(stats.plain_logp_N),
        spread(stats.entropy_N),
        spread(stats.likeliest_N),
        hidden_BTH,
    )


def response_logits(model: nn.Module, batch: PaddedBatch) -> ResponseLogits:
    """One forward over prompt and response; only the response positions' logits are made, all at once."""
    parts = parts_of(model)
    if parts is not None:
        hidden_BTH = _before_response(_hidden(parts.decoder, batch), batch)
        return ResponseLogits(logits_of(hidden_BTH, parts.head), hidden_BTH)
    output = model(
        input_ids=batch.ids_BL,
        attention_mask=batch.attention_BL.long(),
        position_ids=batch.position_BL,
        use_cache=False,
        logits_to_keep=batch.response_ids_BT.shape[1] + 1,
        output_hidden_states=True,
    )
    return ResponseLogits(output.logits[:, :-1], _before_response(output.hidden_states[-1], batch))


def response_hidden(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B, T, H] the decoder's last hidden state before each response token; no logits are made."""
    parts = parts_of(model)
    if parts is None:
        return response_logits(model, batch).hidden_BTH
    return _before_response(_hidden(parts.decoder, batch), batch)


def token_scores(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B, T + 1] scalar head at the position before each response token, and after the last column.

    Column t is a critic's value before token t; the column after a response's last token is its score.
    """
    body, head = _body_and_head(model)
    hidden_BLH = _hidden(body, batch)
    width = batch.response_ids_BT.shape[1]
    return head(hidden_BLH[:, -(width + 1) :]).squeeze(-1).float()


def sequence_scores(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B] reward units: the scalar head at each response's last real token."""
    scores_BT = token_scores(model, batch)
    length_B = batch.response_mask_BT.sum(1)
    return scores_BT.gather(1, length_B.unsqueeze(1)).squeeze(1)


def _hidden(decoder: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B, L, H] the decoder's last hidden state."""
    return decoder(
        input_ids=batch.ids_BL,
        attention_mask=batch.attention_BL.long(),
        position_ids=batch.position_BL,
        use_cache=False,
    ).last_hidden_state


def _before_response(hidden_BLH: Tensor, batch: PaddedBatch) -> Tensor:
    """[B, T, H]: what stands at position t predicts token t + 1, from before the response to its last but one."""
    return hidden_BLH[:, -(batch.response_ids_BT.shape[1] + 1) : -1]


def _body_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The decoder and the scalar head of a sequence-classification model, under LoRA or not."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner.base_model, inner.score  # type: ignore[return-value]
