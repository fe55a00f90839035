"""Log-prob and entropy of tokens, forward and backward: the chunked head against TRL's functions on whole logits.

    python -m benchmarks.head

512 positions of hidden size 512 over a vocabulary of 16,384; a quarter of them are real completion tokens, the others
padding, for which TRL's way makes logits too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from benchmarks.pairs import clock, from_here, peak_memory, record, timed
from benchmarks.shapes import arguments
from rlpipe.ops.head import Head, token_stats

NAME = "log-prob and entropy, 512 x 512 x 16384, a quarter real"
POSITIONS, HIDDEN, VOCABULARY, REAL = 512, 512, 16_384, 128


class Inputs:
    """Hidden states, a head's weight, tokens, and which of them are real."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.hidden_NH = torch.randn(POSITIONS, HIDDEN, generator=generator).requires_grad_()
        self.weight_VH = (torch.randn(VOCABULARY, HIDDEN, generator=generator) / HIDDEN**0.5).requires_grad_()
        self.ids_N = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
        self.real_N = torch.arange(POSITIONS) % 4 < 1

    def gradients(self, loss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden_NH, weight_VH = torch.autograd.grad(loss, (self.hidden_NH, self.weight_VH))
        return loss.detach(), hidden_NH, weight_VH


def ours(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients through the chunked head."""
    at_N = inputs.real_N.nonzero().squeeze(1)
    head = Head(inputs.weight_VH, None, 1.0, None)
    stats = token_stats(inputs.hidden_NH.index_select(0, at_N), inputs.ids_N[at_N], head, temperature=1.0)
    return inputs.gradients((-stats.logp_N - 0.01 * stats.entropy_N).sum() / REAL)


def peer(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The same through TRL's functions."""
    logits_BTV = (inputs.hidden_NH @ inputs.weight_VH.T).unsqueeze(0)
    logp_BT = selective_log_softmax(logits_BTV, inputs.ids_N.unsqueeze(0))
    entropy_BT = entropy_from_logits(logits_BTV)
    return inputs.gradients(((-logp_BT - 0.01 * entropy_BT) * inputs.real_N).sum() / REAL)


def ours_once() -> None:
    """For a process of its own."""
    inputs = Inputs()
    from_here()
    ours(inputs)


def peer_once() -> None:
    """For a process of its own."""
    inputs = Inputs()
    from_here()
    peer(inputs)


def main() -> None:
    given = arguments("Log-prob and entropy, forward and backward, against TRL's functions.", pairs=15)
    inputs = Inputs()
    for name, mine, theirs in zip(("loss", "hidden", "weight"), ours(inputs), peer(inputs), strict=True):
        gap = ((mine - theirs).abs().max() / theirs.abs().max()).item()
        assert gap < 1e-5, f"{name}: the two sides differ by {gap:.1e} of the largest"
        print(f"{name}: both the same within {gap:.1e} of the largest")
    record(
        timed(NAME, lambda: clock(lambda: ours(inputs)), lambda: clock(lambda: peer(inputs)), given.pairs),
        peak_memory(f"{NAME}, memory", ours_once, peer_once),
    )


if __name__ == "__main__":
    main()
