"""The protocol of everything that draws completions, and the engine on transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from rlpipe.ops.logprobs import selective_log_softmax
from rlpipe.rollout.streams import keys, uniforms
from rlpipe.types import Completion, Request, Sampling


class Engine(Protocol):
    """Draws one completion for each request, in the requests' order."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Tokens and the sampler's own log-probs, at the sampling temperature."""
        ...


@dataclass(frozen=True)
class TransformersEngine:
    """Samples from a live transformers model, with its key-value cache."""

    model: nn.Module
    eos_ids: frozenset[int]
    pad_id: int
    device: torch.device
    batch_size: int

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Engine`. Requests are decoded in batches of like prompt length, which changes no sample."""
        by_length = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        drawn: dict[int, Completion] = {}
        for start in range(0, len(requests), self.batch_size):
            chosen = by_length[start : start + self.batch_size]
            drawn.update(zip(chosen, self._decode([requests[i] for i in chosen], sampling), strict=True))
        return [drawn[i] for i in range(len(requests))]

    def _decode(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        ids_BL, attention_BL = self._left_padded([request.prompt_ids for request in requests])
        key_B = keys([request.stream for request in requests], self.device)
        eos = torch.tensor(sorted(self.eos_ids), device=self.device)
        done_B = torch.zeros(len(requests), dtype=torch.bool, device=self.device)
        position_BL = (attention_BL.cumsum(1) - 1).clamp(min=0)
        cache = None
        tokens, logps, real = [], [], []
        for position in range(sampling.max_new_tokens):
            output = self.model(
                input_ids=ids_BL,
                attention_mask=attention_BL,
                position_ids=position_BL,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            token_B, logp_B = draw(output.logits[:, -1], uniforms(key_B, position), sampling)
            token_B = token_B.masked_fill(done_B, self.pad_id)
            tokens.append(token_B)
            logps.append(logp_B)
            real.append(~done_B)
            done_B = done_B | torch.isin(token_B, eos)
            if bool(done_B.all()):
                break
            ids_BL = token_B.unsqueeze(1)
            attention_BL = torch.cat([attention_BL, torch.ones_like(ids_BL)], 1)
            position_BL = position_BL[:, -1:] + 1
        return _completions(torch.stack(tokens, 1), torch.stack(logps, 1), torch.stack(real, 1), done_B)

    def _left_padded(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, prompts))
        ids_BL = torch.full((len(prompts), width), self.pad_id, dtype=torch.long)
        attention_BL = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids_BL[row, width - len(prompt) :] = torch.tensor(prompt)
            attention_BL[row, width - len(prompt) :] = 1
        return ids_BL.to(self.device), attention_BL.to(self.device)


def draw(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Token ids [B] and their log-probs [B] (nats) by inversion of the cumulative distribution.

    Temperature 0 takes the most likely token and gives its log-prob under the model itself. With top_k or top_p the
    draw is from what they leave; the log-prob is still that in the whole distribution, which a trainer can compute.
    """
    logits_BV = logits_BV.float()
    if sampling.temperature == 0:
        token_B = logits_BV.argmax(-1)
    else:
        logits_BV = logits_BV / sampling.temperature
        cumulative_BV = _kept(torch.softmax(logits_BV, -1), sampling).double().cumsum(-1)
        threshold_B1 = (uniform_B * cumulative_BV[:, -1]).unsqueeze(1)
        token_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(1)
        token_B = token_B.clamp(max=logits_BV.shape[-1] - 1)
    return token_B, selective_log_softmax(logits_BV, token_B)


def _kept(prob_BV: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities with zeros where top_k or top_p cut; of equally likely tokens at the border the lower id stays."""
    if sampling.top_k is None and sampling.top_p is None:
        return prob_BV
    sorted_BV, order_BV = prob_BV.sort(dim=-1, descending=True, stable=True)
    keep_BV = torch.ones_like(sorted_BV, dtype=torch.bool)
    if sampling.top_k is not None:
        keep_BV[:, sampling.top_k :] = False
    if sampling.top_p is not None:
        # What stands before a token, itself not counted: the token that crosses the border stays.
        keep_BV &= sorted_BV.cumsum(-1) - sorted_BV < sampling.top_p
    return torch.where(torch.zeros_like(keep_BV).scatter(-1, order_BV, keep_BV), prob_BV, torch.zeros_like(prob_BV))


def _completions(token_BT: Tensor, logp_BT: Tensor, real_BT: Tensor, done_B: Tensor) -> list[Completion]:
    rows = zip(token_BT.tolist(), logp_BT.tolist(), real_BT.sum(1).tolist(), done_B.tolist(), strict=True)
    return [Completion(tuple(ids[:n]), tuple(logps[:n]), finished) for ids, logps, n, finished in rows]
