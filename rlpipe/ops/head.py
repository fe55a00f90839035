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
from rlpipe.ops.products import linear, rounded, wide

# Logits that are made at once: as many rows as make this many numbers (8 MB in float32), or as many at least: of fewer,
# reading the weights costs more than multiplying with them.
_ELEMENTS, _LEAST_ROWS = 1 << 21, 128
# Numbers that a CPU then looks at at once, a dozen times: 2 MB in float32 stay in a core's own cache.
_MOMENT_ELEMENTS = 1 << 19
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
        hidden_NH, weight_VH = wide(hidden_NH.to(dtype)), wide(rounded(weight_VH, dtype))
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
        parts, kept = [], list[Tensor]()
        keeps = any(ctx.needs_input_grad) and len(hidden_NH) * len(weight_VH) <= _KEPT_ELEMENTS
        ctx.room = room = _Room(hidden_NH, weight_VH)
        for rows in room.pieces():
            x_CV = room.new(rows) if keeps else None
            made_CV = x_CV if x_CV is not None and x_CV.dtype == hidden_NH.dtype else room.made(rows)
            _multiply(hidden_NH[rows], weight_VH, bias_V, out_CV=made_CV)
            for few, at in room.moments(rows):
                x_FV = _bent(room.exact(made_CV, few, x_CV), scale, softcap)
                parts.append(_read(x_FV, ids_N[at], temperature, room.moment("weights", few)))
            if x_CV is not None:
                kept.append(x_CV)  # already less its maximum
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
        for number, rows in enumerate(room.pieces()):
            made_CV = kept[number] if kept else room.made(rows)
            if not kept:
                _multiply(hidden_NH[rows], weight_VH, bias_V, out_CV=made_CV)
            grad_CV = room.grad(rows)
            for few, at in room.moments(rows):
                x_FV, peak_F1 = room.exact(made_CV, few), peak_N[at].unsqueeze(1)
                if not kept:
                    _bent(x_FV, scale, softcap).sub_(peak_F1)
                grad_FV = grad_CV[few] if grad_CV.dtype == exact else room.moment("grad", few)
                entropy_grad_F = None if upstream[2] is None else entropy_grad_N[at]
                more_FV = room.moment("weights", few)
                _plain_grad(x_FV, mass_N[at], entropy_N[at], plain_grad_N[at], entropy_grad_F, more_FV, out_FV=grad_FV)
                at_token_F = plain_grad_N[at]
                if temperature != 1.0:
                    share_F = logp_grad_N[at] / temperature
                    tempered_FV = torch.div(x_FV, temperature, out=more_FV)
                    tempered_FV.sub_(tempered_mass_N[at].unsqueeze(1)).exp_()
                    grad_FV.sub_(tempered_FV.mul_(share_F.unsqueeze(1)))
                    at_token_F = at_token_F + share_F
                grad_FV.scatter_add_(1, ids_N[at].unsqueeze(1), at_token_F.unsqueeze(1))
                if softcap is not None:
                    grad_FV.mul_(1 - ((x_FV + peak_F1) / softcap).square_())
                if scale != 1.0:
                    grad_FV.mul_(scale)
                if grad_CV.dtype != exact:
                    grad_CV[few] = grad_FV
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

    A piece is C rows, so many that the product is worth reading the weights; a moment is F of them, so few that what is
    made of them in float32 or more stays in a CPU's cache.
    """

    def __init__(self, hidden_NH: Tensor, weight_VH: Tensor) -> None:
        self._rows, self._vocabulary = len(hidden_NH), len(weight_VH)
        self._narrow, self._device = hidden_NH.dtype, hidden_NH.device
        self._in_piece = max(_LEAST_ROWS, _ELEMENTS // self._vocabulary)
        self._in_moment = max(1, _MOMENT_ELEMENTS // self._vocabulary)
        if self._device.type != "cpu":
            self._in_moment = self._in_piece  # a call costs more there than memory
        self._exact = torch.promote_types(self._narrow, torch.float32)
        self._rooms: dict[str, Tensor] = {}

    def pieces(self) -> Iterator[slice]:
        """Of all rows; one of nothing where there are none."""
        for start in range(0, max(self._rows, 1), self._in_piece):
            yield slice(start, min(start + self._in_piece, self._rows))

    def moments(self, rows: slice) -> Iterator[tuple[slice, slice]]:
        """Of a piece: which of its rows, and which of all; one of nothing where there are none."""
        count = rows.stop - rows.start
        for start in range(0, max(count, 1), self._in_moment):
            few = slice(start, min(start + self._in_moment, count))
            yield few, slice(rows.start + few.start, rows.start + few.stop)

    def new(self, rows: slice) -> Tensor:
        """[C, V] that stays, in at least float32."""
        return torch.empty((rows.stop - rows.start, self._vocabulary), dtype=self._exact, device=self._device)

    def made(self, rows: slice) -> Tensor:
        """[C, V] for a product, of the hidden states' type."""
        return self._of("made", self._in_piece, rows, self._narrow)

    def grad(self, rows: slice) -> Tensor:
        """[C, V] of the same type: in the product's place, where that is read a moment at a time."""
        return self.made(rows) if self._narrow != self._exact else self._of("grad", self._in_piece, rows, self._exact)

    def exact(self, made_CV: Tensor, few: slice, kept_CV: Tensor | None = None) -> Tensor:
        """[F, V] some rows of a product in at least float32: itself, or a copy, in `kept_CV` if there is one."""
        if made_CV.dtype == self._exact:
            return made_CV[few]
        return (self.moment("logits", few) if kept_CV is None else kept_CV[few]).copy_(made_CV[few])

    def moment(self, name: str, few: slice) -> Tensor:
        """[F, V] in at least float32, for a moment."""
        return self._of(name, self._in_moment, few, self._exact)

    def _of(self, name: str, most: int, rows: slice, dtype: torch.dtype) -> Tensor:
        if name not in self._rooms:
            shape = min(most, self._rows), self._vocabulary
            self._rooms[name] = torch.empty(shape, dtype=dtype, device=self._device)
        return self._rooms[name][: rows.stop - rows.start]


def _multiply(hidden_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, *, out_CV: Tensor) -> None:
    if bias_V is None:
        torch.mm(hidden_CH, weight_VH.T, out=out_CV)
    else:
        torch.addmm(bias_V, hidden_CH, weight_VH.T, out=out_CV)


def _bent(logits_FV: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Logits of a product, in its place."""
    if scale != 1.0:
        logits_FV.mul_(scale)
    return logits_FV if softcap is None else logits_FV.div_(softcap).tanh_().mul_(softcap)


def _read(logits_FV: Tensor, ids_F: Tensor, temperature: float, weight_FV: Tensor) -> tuple[Tensor, ...]:
    """Log-prob, untempered log-prob, entropy, likeliest, maximum, log of the weights' sum untempered and tempered.

    Leaves x = logits - maximum in logits_FV, anything in weight_FV.
    """
    peak_F = logits_FV.amax(-1)
    x_FV = logits_FV.sub_(peak_F.unsqueeze(1))
    chosen_F = x_FV.gather(1, ids_F.unsqueeze(1)).squeeze(1)
    torch.exp(x_FV, out=weight_FV)
    sum_F = weight_FV.sum(-1)
    mass_F = sum_F.log()
    # H = -sum_v p_v (x_v - mass) with p_v = weight_v / sum.
    entropy_F = mass_F - weight_FV.mul_(x_FV).sum(-1) / sum_F
    plain_F = logp_F = chosen_F - mass_F
    tempered_mass_F = mass_F
    if temperature != 1.0:
        tempered_mass_F = torch.div(x_FV, temperature, out=weight_FV).exp_().sum(-1).log()
        logp_F = chosen_F / temperature - tempered_mass_F
    return logp_F, plain_F, entropy_F, chosen_F == 0, peak_F, mass_F, tempered_mass_F


def _plain_grad(
    x_FV: Tensor,
    mass_F: Tensor,
    entropy_F: Tensor,
    plain_grad_F: Tensor,
    entropy_grad_F: Tensor | None,
    more_FV: Tensor,
    *,
    out_FV: Tensor,
) -> None:
    """The gradient of the untempered log-probs and entropies but for the tokens' own part goes into out_FV, [F, V].

    d logp / d x_v = [v = token] - p_v,   d H / d x_v = -p_v (log p_v + H)

    Leaves anything in more_FV.
    """
    log_p_FV = torch.sub(x_FV, mass_F.unsqueeze(1), out=out_FV)
    if entropy_grad_F is None:
        log_p_FV.exp_().mul_(-plain_grad_F.unsqueeze(1))
        return
    p_FV = torch.exp(log_p_FV, out=more_FV)
    log_p_FV.add_(entropy_F.unsqueeze(1)).mul_(-entropy_grad_F.unsqueeze(1)).sub_(plain_grad_F.unsqueeze(1))
    log_p_FV.mul_(p_FV)


def _added(weight_grad_VH: Tensor | None, grad_CV: Tensor, hidden_CH: Tensor, exact: torch.dtype) -> Tensor:
    """weight_grad + grad^T hidden, summed over pieces in `exact`, at least float32; None is the first piece."""
    if weight_grad_VH is None:
        return (grad_CV.T @ hidden_CH).to(exact)
    if grad_CV.dtype == exact:
        return weight_grad_VH.addmm_(grad_CV.T, hidden_CH)
    return weight_grad_VH.add_(grad_CV.T @ hidden_CH)
