"""From token ids to log-probs and to scores: the only place that calls a model's forward in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlpipe.models.decoder import parts_of
from rlpipe.models.packed import packed_states, packs, padded_states
from rlpipe.models.packing import pack
from rlpipe.ops.head import Head, logits_of, token_stats
from rlpipe.ops.logprobs import entropy, selective_log_softmax
from rlpipe.ops.masking import zero_outside
from rlpipe.types import PaddedBatch


@dataclass(frozen=True)
class States:
    """The decoder's last hidden states, and which of them stand before a batch's response tokens.

    Attributes:
        states_NH: [N, H], carries grad.
        at_BS: [B, T + 1] int64: the state before each response token, and after the last one its own.
    """

    states_NH: Tensor
    at_BS: Tensor

    def before_response(self) -> Tensor:
        """[B, T, H]: what the response's tokens were drawn from; any state where masked."""
        # An embedding's backward pass adds up what several responses draw from their prompt's last state.
        return torch.nn.functional.embedding(self.at_BS[:, :-1], self.states_NH)

    def before(self, mask_BT: Tensor) -> Tensor:
        """[M, H]: the same for the real tokens alone."""
        return torch.nn.functional.embedding(self.at_BS[:, :-1][mask_BT], self.states_NH)

    def scores(self, head: nn.Module) -> Tensor:
        """[B, T + 1] float32, a scalar head's: before each response token, and at the last; any score beyond."""
        scores_N1 = head(self.states_NH.float()).float()
        return torch.nn.functional.embedding(self.at_BS, scores_N1).squeeze(-1)

    def detached(self) -> States:
        """The same without grad."""
        return States(self.states_NH.detach(), self.at_BS)


@dataclass(frozen=True)
class ResponseStats:
    """What training reads off a forward pass, at the response's positions, 0 where masked.

    Attributes:
        logp_BT: [B, T] nats, float32: the response's tokens at a temperature.
        plain_logp_BT: [B, T] nats, float32: the same at temperature 1, the model itself.
        entropy_BT: [B, T] nats, float32, untempered.
        greedy_BT: [B, T] bool: no token is more likely.
        states: what they were made of.
    """

    logp_BT: Tensor
    plain_logp_BT: Tensor
    entropy_BT: Tensor
    greedy_BT: Tensor
    states: States


@dataclass(frozen=True)
class ResponseLogits:
    """[B, T, V] logits of the response positions, for what needs whole distributions."""

    logits_BTV: Tensor
    states: States

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
            self.states,
        )


def response_stats(model: nn.Module, batch: PaddedBatch, *, temperature: float) -> ResponseStats:
    """One forward over prompts and responses; the head sees the real response tokens alone, a piece at a time."""
    parts = parts_of(model)
    if parts is None:
        return response_logits(model, batch).stats(batch, temperature=temperature)
    return stats_of(read(parts.decoder, batch), batch, parts.head, temperature=temperature)


def stats_of(states: States, batch: PaddedBatch, head: Head, *, temperature: float) -> ResponseStats:
    """The head at the real response tokens."""
    mask_BT = batch.response_mask_BT
    stats = token_stats(states.before(mask_BT), batch.response_ids_BT[mask_BT], head, temperature=temperature)

    def placed(value_M: Tensor) -> Tensor:
        return value_M.new_zeros(mask_BT.shape).masked_scatter(mask_BT, value_M)

    return ResponseStats(
        placed(stats.logp_N),
        placed(stats.plain_logp_N),
        placed(stats.entropy_N),
        placed(stats.likeliest_N),
        states,
    )


def response_logits(model: nn.Module, batch: PaddedBatch) -> ResponseLogits:
    """One forward over prompts and responses; only the response positions' logits are made, all at once."""
    parts = parts_of(model)
    if parts is not None:
        states = read(parts.decoder, batch)
        return ResponseLogits(logits_of(states.before_response(), parts.head), states)
    output = model(
        input_ids=batch.ids_BL,
        attention_mask=batch.attention_BL.long(),
        position_ids=batch.position_BL,
        use_cache=False,
        logits_to_keep=batch.response_ids_BT.shape[1] + 1,
        output_hidden_states=True,
    )
    return ResponseLogits(output.logits[:, :-1], _from_padded(output.hidden_states[-1], batch))


def response_states(model: nn.Module, batch: PaddedBatch) -> States:
    """The hidden states alone; no logits are made."""
    parts = parts_of(model)
    return response_logits(model, batch).states if parts is None else read(parts.decoder, batch)


def token_scores(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B, T + 1] float32, the model's scalar head: before each response token, and at the last; any score beyond.

    Column t is a critic's value before token t; the column after a response's last token is its score.
    """
    body, head = _body_and_head(model)
    return read(body, batch).scores(head)


def sequence_scores(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B] reward units: the scalar head at each response's last real token."""
    scores_BT = token_scores(model, batch)
    length_B = batch.response_mask_BT.sum(1)
    return scores_BT.gather(1, length_B.unsqueeze(1)).squeeze(1)


def read(decoder: nn.Module, batch: PaddedBatch) -> States:
    """One forward pass, without padding and each different prompt once where the decoder can be read so."""
    if packs(decoder):
        packing = pack(batch)
        return States(packed_states(decoder, packing), packing.at_BS)
    return read_padded(decoder, batch)


def read_padded(decoder: nn.Module, batch: PaddedBatch) -> States:
    """One forward pass over the batch as it is padded, for any decoder."""
    return _from_padded(padded_states(decoder, batch), batch)


def _from_padded(states_BLH: Tensor, batch: PaddedBatch) -> States:
    """What stands at a position predicts the next one."""
    rows, length = states_BLH.shape[:2]
    place_BL = torch.arange(rows * length, device=states_BLH.device).view(rows, length)
    return States(states_BLH.flatten(0, 1), place_BL[:, batch.prompt_width - 1 :])


def _body_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The decoder and the scalar head of a sequence-classification model, under LoRA or not."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner.base_model, inner.score  # type: ignore[return-value]
