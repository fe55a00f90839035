"""From hidden states through the vocabulary to log-probs and entropies, a piece at a time, forward and backward.

A decoder's last linear map is its largest tensor: N tokens make N x V logits, and autograd keeps some copies of them.
Here logits exist for a few hundred tokens at once; the backward pass makes them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlpipe.errors import ShapeError
from rlpipe.ops.products import linear, wide

# Logits at once: as many rows as make this many numbers (8 MB in float32), but never so few that reading the weights
# costs more than multiplying with them.
_ELEMENTS = 1 << 21
_LEAST_ROWS = 128
# As many (64 MB in float32) are kept for the backward pass; where there are more, all are made anew.
_KEPT_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Head:
    """How a decoder makes logits of its last hidden state h.

        logits = softcap tanh(z / softcap),   z = scale (W h + bias);   softcap None: logits = z

    Attributes:
        weight_VH: [V, H].
        bias_V: [V], or None.
        scale: dimensionless.
        softcap: > 0, or None.
    """

    weight_VH: Tensor
    bias_V: Tensor | None
    scale: float
    softcap: float | None


@dataclass(frozen=True)
class TokenStats:
    """What training reads off the distributions that N tokens were drawn from.

    Attributes:
        logp_N: nats, of the tokens at a temperature, carries grad.
        plain_logp_N: nats, of the tokens untempered, carries grad.
        entropy_N: nats, untempered, carries grad.
        likeliest_N: bool, no token is more likely.
    """

    logp_N: Tensor
    plain_logp_N: Tensor
    entropy_N: Tensor
    likeliest_N: Tensor


def logits_of(hidden: Tensor, head: Head) -> Tensor:
    """[..., V] all logits of hidden states [..., H], through autograd."""
    logits = linear(hidden, head.weight_VH, head.bias_V)
    if head.scale != 1.0:
        logits = head.scale * logits
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def token_stats(hidden_NH: Tensor, ids_N: Tensor, head: Head, *, temperature: float) -> TokenStats:
    """Log-probs and entropies of given tokens, in at least float32; no more than a piece of the logits exists at once.

    Args:
        hidden_NH: [N, H] the decoder's last hidden state before each token, carries grad.
        ids_N: [N] int64.
        temperature: > 0, dimensionless.
    Raises: ShapeError if the shapes do not fit.
    """
    if hidden_NH.shape[1:] != head.weight_VH.shape[1:] or ids_N.shape != hidden_NH.shape[:1]:
        raise ShapeError(
            f"hidden has shape {tuple(hidden_NH.shape)}, ids {tuple(ids_N.shape)}, the head's weight "
            f"{tuple(head.weight_VH.shape)}; expected [N, H], [N] and [V, H]."
        )
    device, weight_VH, bias_V = hidden_NH.device.type, head.weight_VH, head.bias_V
    if torch.is_autocast_enabled(device):
        # What autocast does to a linear map; inside of a Function it could not see the backward pass.
        dtype = torch.get_autocast_dtype(device)
        hidden_NH, weight_VH = wide(hidden_NH.to(dtype)), wide(weight_VH.to(dtype))
        bias_V = None if bias_V is None else wide(bias_V.to(dtype))
    with torch.autocast(device, enabled=False):
        return TokenStats(*_Stats.apply(hidden_NH, weight_VH, bias_V, ids_N, head.scale, head.softcap, temperature))


class _Stats(torch.autograd.Function):
    """Logits are held as x = logits - max(logits): differences of log-probs then round no more than they must."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        ids_N: Tensor,
        scale: float,
        softcap: float | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pieces = list(_pieces(len(hidden_NH), len(weight_VH)))
        parts, kept = [], list[Tensor]()
        keeps = any(ctx.needs_input_grad) and len(hidden_NH) * len(weight_VH) <= _KEPT_ELEMENTS
        ctx.room = room = _Room(hidden_NH, weight_VH)
        for rows in pieces:
            logits_CV = room.new(rows) if keeps else room.of("logits", rows)
            _logits(hidden_NH[rows], weight_VH, bias_V, scale, softcap, out_CV=logits_CV)
            parts.append(_read(logits_CV, ids_N[rows], temperature, room.of("scratch", rows)))
            if keeps:
                kept.append(logits_CV)  # already less its maximum
        logp_N, plain_N, entropy_N, likeliest_N, peak_N, mass_N, tempered_mass_N = (
            torch.cat(column) for column in zip(*parts, strict=True)
        )
        ctx.numbers = (scale, softcap, temperature)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(likeliest_N)
        ctx.save_for_backward(
            hidden_NH, weight_VH, bias_V, ids_N, entropy_N, peak_N, mass_N, tempered_mass_N, *kept
        )  # fmt: skip
        return logp_N, plain_N, entropy_N, likeliest_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, ids_N, entropy_N, peak_N, mass_N, tempered_mass_N, *kept = ctx.saved_tensors
        scale, softcap, temperature = ctx.numbers
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        exact = peak_N.dtype
        logp_grad_N, plain_grad_N, entropy_grad_N = (
            torch.zeros_like(peak_N) if grad is None else grad.to(exact) for grad in upstream[:3]
        )
        if temperature == 1.0:
            plain_grad_N, logp_grad_N = plain_grad_N + logp_grad_N, torch.zeros_like(logp_grad_N)
        hidden_grad_NH = torch.empty_like(hidden_NH) if wants_hidden else None
        weight_grad_VH: Tensor | None = None
        bias_grad_V = torch.zeros_like(bias_V, dtype=exact) if wants_bias else None
        # Whoever keeps the loss keeps ctx, and should not keep the room with it.
        room: _Room = ctx.room or _Room(hidden_NH, weight_VH)
        ctx.room = None
        for number, rows in enumerate(_pieces(len(hidden_NH), len(weight_VH))):
            peak_C1 = peak_N[rows].unsqueeze(1)
            if kept:
                x_CV = kept[number]
            else:
                x_CV = room.of("logits", rows)
                _logits(hidden_NH[rows], weight_VH, bias_V, scale, softcap, out_CV=x_CV)
                x_CV.sub_(peak_C1)
            entropy_grad_C = None if upstream[2] is None else entropy_grad_N[rows]
            grad_CV = _plain_grad(x_CV, mass_N[rows], entropy_N[rows], plain_grad_N[rows], entropy_grad_C, room, rows)
            at_token_C = plain_grad_N[rows]
            if temperature != 1.0:
                share_C = logp_grad_N[rows] / temperature
                tempered_CV = torch.div(x_CV, temperature, out=room.of("more", rows))
                tempered_CV.sub_(tempered_mass_N[rows].unsqueeze(1)).exp_()
                grad_CV.sub_(tempered_CV.mul_(share_C.unsqueeze(1)))
                at_token_C = at_token_C + share_C
            grad_CV.scatter_add_(1, ids_N[rows].unsqueeze(1), at_token_C.unsqueeze(1))
            if softcap is not None:
                grad_CV.mul_(1 - ((x_CV + peak_C1) / softcap).square_())
            grad_CV = (grad_CV if scale == 1.0 else grad_CV.mul_(scale)).to(hidden_NH.dtype)
            if hidden_grad_NH is not None:
                hidden_grad_NH[rows] = grad_CV @ weight_VH
            if wants_weight:
                weight_grad_VH = _added(weight_grad_VH, grad_CV, hidden_NH[rows], exact)
            if bias_grad_V is not None:
                bias_grad_V += grad_CV.sum(0, dtype=exact)
        return (
            hidden_grad_NH,
            None if weight_grad_VH is None else weight_grad_VH.to(weight_VH.dtype),
            None if bias_grad_V is None else bias_grad_V.to(bias_V.dtype),
            None, None, None, None,
        )  # fmt: skip


class _Room:
    """Memory for a piece of the logits and what is made of them, used again for every piece and on the way back: fresh
    memory of that size costs more to get from the system than the arithmetic in it.
    """

    def __init__(self, hidden_NH: Tensor, weight_VH: Tensor) -> None:
        self._shape = min(len(hidden_NH), _rows_at_once(len(weight_VH))), len(weight_VH)
        self._dtype, self._device = torch.promote_types(hidden_NH.dtype, torch.float32), hidden_NH.device
        self._rooms: dict[str, Tensor] = {}

    def of(self, name: str, rows: slice) -> Tensor:
        """[C, V] for a piece, in at least float32: whatever the last piece left there."""
        if name not in self._rooms:
            self._rooms[name] = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        return self._rooms[name][: rows.stop - rows.start]

    def new(self, rows: slice) -> Tensor:
        """[C, V] that stays."""
        return torch.empty((rows.stop - rows.start, self._shape[1]), dtype=self._dtype, device=self._device)


def _rows_at_once(vocabulary: int) -> int:
    return max(_LEAST_ROWS, _ELEMENTS // vocabulary)


def _pieces(rows: int, vocabulary: int) -> Iterator[slice]:
    at_once = _rows_at_once(vocabulary)
    for start in range(0, max(rows, 1), at_once):
        yield slice(start, min(start + at_once, rows))


def _logits(
    hidden_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, scale: float, softcap: float | None, *, out_CV: Tensor
) -> None:
    """Logits go into out_CV, [C, V] in at least float32."""
    if out_CV.dtype != hidden_CH.dtype:
        out_CV.copy_(torch.nn.functional.linear(hidden_CH, weight_VH, bias_V))
    elif bias_V is None:
        torch.mm(hidden_CH, weight_VH.T, out=out_CV)
    else:
        torch.addmm(bias_V, hidden_CH, weight_VH.T, out=out_CV)
    if scale != 1.0:
        out_CV.mul_(scale)
    if softcap is not None:
        out_CV.div_(softcap).tanh_().mul_(softcap)


def _read(logits_CV: Tensor, ids_C: Tensor, temperature: float, weight_CV: Tensor) -> tuple[Tensor, ...]:
    """Log-prob, untempered log-prob, entropy, likeliest, maximum, log of the weights' sum untempered and tempered.

    Leaves x = logits - maximum in logits_CV, anything in weight_CV.
    """
    peak_C = logits_CV.amax(-1)
    x_CV = logits_CV.sub_(peak_C.unsqueeze(1))
    chosen_C = x_CV.gather(1, ids_C.unsqueeze(1)).squeeze(1)
    torch.exp(x_CV, out=weight_CV)
    sum_C = weight_CV.sum(-1)
    mass_C = sum_C.log()
    # H = -sum_v p_v (x_v - mass) with p_v = weight_v / sum.
    entropy_C = mass_C - weight_CV.mul_(x_CV).sum(-1) / sum_C
    plain_C = logp_C = chosen_C - mass_C
    tempered_mass_C = mass_C
    if temperature != 1.0:
        tempered_mass_C = torch.div(x_CV, temperature, out=weight_CV).exp_().sum(-1).log()
        logp_C = chosen_C / temperature - tempered_mass_C
    return logp_C, plain_C, entropy_C, chosen_C == 0, peak_C, mass_C, tempered_mass_C


def _plain_grad(
    x_CV: Tensor,
    mass_C: Tensor,
    entropy_C: Tensor,
    plain_grad_C: Tensor,
    entropy_grad_C: Tensor | None,
    room: _Room,
    rows: slice,
) -> Tensor:
    """[C, V] gradient of the untempered log-probs and entropies but for the tokens' own part, in `room`.

    d logp / d x_v = [v = token] - p_v,   d H / d x_v = -p_v (log p_v + H)
    """
    log_p_CV = torch.sub(x_CV, mass_C.unsqueeze(1), out=room.of("scratch", rows))
    if entropy_grad_C is None:
        return log_p_CV.exp_().mul_(-plain_grad_C.unsqueeze(1))
    p_CV = torch.exp(log_p_CV, out=room.of("more", rows))
    log_p_CV.add_(entropy_C.unsqueeze(1)).mul_(-entropy_grad_C.unsqueeze(1)).sub_(plain_grad_C.unsqueeze(1))
    return log_p_CV.mul_(p_CV)


def _added(weight_grad_VH: Tensor | None, grad_CV: Tensor, hidden_CH: Tensor, exact: torch.dtype) -> Tensor:
    """weight_grad + grad^T hidden, summed over pieces in `exact`, at least float32; None is the first piece."""
    if weight_grad_VH is None:
        return (grad_CV.T @ hidden_CH).to(exact)
    if grad_CV.dtype == exact:
        return weight_grad_VH.addmm_(grad_CV.T, hidden_CH)
    return weight_grad_VH.add_(grad_CV.T @ hidden_CH)
