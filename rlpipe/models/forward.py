"""From token ids to log-probs and to scores: the only place that calls a model's forward in training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlpipe.ops.logprobs import entropy, selective_log_softmax
from rlpipe.types import PaddedBatch


@dataclass(frozen=True)
class ResponseLogits:
    """[B, T, V] logits of the response positions, and what is read off them.

    hidden_BTH: [B, T, H] the decoder's last hidden state before each response token; None unless asked for.
    """

    logits_BTV: Tensor
    ids_BT: Tensor
    hidden_BTH: Tensor | None = None

    def logp(self, temperature: float) -> Tensor:
        """[B, T] nats, float32: log-prob of the response's tokens at a temperature; 1 is the model itself."""
        scaled = self.logits_BTV if temperature == 1.0 else self.logits_BTV / temperature
        return selective_log_softmax(scaled, self.ids_BT)

    def log_probs(self) -> Tensor:
        """[B, T, V] nats, float32: the whole distribution, untempered."""
        return torch.log_softmax(self.logits_BTV.float(), -1)

    def entropy(self) -> Tensor:
        """[B, T] nats."""
        return entropy(self.logits_BTV)

    def greedy_hits(self) -> Tensor:
        """[B, T] bool: the token is the most likely one."""
        return self.logits_BTV.argmax(-1) == self.ids_BT


def response_logits(model: nn.Module, batch: PaddedBatch, *, with_hidden: bool = False) -> ResponseLogits:
    """One forward over prompt and response; only the response positions' logits are made."""
    width = batch.response_ids_BT.shape[1]
    output = model(
        input_ids=batch.ids_BL,
        attention_mask=batch.attention_BL.long(),
        position_ids=batch.position_BL,
        use_cache=False,
        logits_to_keep=width + 1,
        output_hidden_states=with_hidden,
    )
    # The logits at position t predict token t + 1: drop the last, keep the one before the first response token.
    hidden_BTH = output.hidden_states[-1][:, -(width + 1) : -1] if with_hidden else None
    return ResponseLogits(output.logits[:, :-1], batch.response_ids_BT, hidden_BTH)


def token_scores(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B, T + 1] scalar head at the position before each response token, and after the last column.

    Column t is a critic's value before token t; the column after a response's last token is its score.
    """
    body, head = _body_and_head(model)
    hidden_BLH = body(
        input_ids=batch.ids_BL,
        attention_mask=batch.attention_BL.long(),
        position_ids=batch.position_BL,
        use_cache=False,
    ).last_hidden_state
    width = batch.response_ids_BT.shape[1]
    return head(hidden_BLH[:, -(width + 1) :]).squeeze(-1).float()


def sequence_scores(model: nn.Module, batch: PaddedBatch) -> Tensor:
    """[B] reward units: the scalar head at each response's last real token."""
    scores_BT = token_scores(model, batch)
    length_B = batch.response_mask_BT.sum(1)
    return scores_BT.gather(1, length_B.unsqueeze(1)).squeeze(1)


def _body_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The decoder and the scalar head of a sequence-classification model, under LoRA or not."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner.base_model, inner.score  # type: ignore[return-value]
