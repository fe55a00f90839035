"""Estimators of KL(policy || reference): their formulas, their bias, their spread, and what their gradients do."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.kl import exact, hinge, k1, k2, k3
from rlpipe.ops.needs import needs_of
from tests.unit.ops.inputs import MASK, draw, leaf, padded, rows

LOGP, REF = draw(0, -2, 0).nan_to_num(-1), draw(1, -2, 0).nan_to_num(-1)

# Far enough apart that bias and variance show: KL = 0.5 ln 5 + 0.2 ln 0.8 + 0.2 ln 0.5 + 0.1 ln 0.4 = 0.530.
P, Q = (0.5, 0.2, 0.2, 0.1), (0.1, 0.25, 0.4, 0.25)
KL = sum(p * math.log(p / q) for p, q in zip(P, Q, strict=True))


# ---- formulas -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "formula"),
    [
        (k1, lambda logp, ref: logp - ref),
        (k2, lambda logp, ref: (logp - ref) ** 2 / 2),
        (k3, lambda logp, ref: math.exp(ref) / math.exp(logp) - 1 - (ref - logp)),
    ],
)
def test_per_token(op, formula):
    everywhere = torch.ones_like(MASK)
    lists = zip(rows(LOGP, everywhere), rows(REF, everywhere), strict=True)
    expected = [[formula(*token) for token in zip(*row, strict=True)] for row in lists]
    assert_close(op(LOGP, REF), torch.tensor(expected, dtype=torch.float64))
    assert gradcheck(lambda logp: op(logp, REF), leaf(LOGP))


def test_exact_is_the_sum_over_the_vocabulary():
    log_p, log_q = (torch.tensor([[x]], dtype=torch.float64).log() for x in (P, Q))
    assert_close(exact(log_p, log_q).item(), KL)
    logits, ref = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert gradcheck(lambda x: exact(x.log_softmax(-1), ref.log_softmax(-1)), leaf(logits))


@pytest.mark.parametrize("op", [k1, k2, k3])
def test_of_a_policy_to_itself_every_estimate_is_0(op):
    assert op(LOGP, LOGP).count_nonzero() == 0


def test_only_exact_reads_whole_distributions():
    assert needs_of(exact).vocabulary
    assert not any(needs_of(op).vocabulary for op in (k1, k2, k3))


# ---- bias and variance --------------------------------------------------------------------------------


def _sampled(op, n=200_000):
    """`op` at n draws from P, and the standard error of its mean."""
    draws = torch.multinomial(torch.tensor(P), n, replacement=True, generator=torch.Generator().manual_seed(0))
    log_p, log_q = (torch.tensor(x, dtype=torch.float64).log() for x in (P, Q))
    estimates = op(log_p[draws], log_q[draws])
    return estimates, (estimates.std() / math.sqrt(n)).item()


@pytest.mark.parametrize("op", [k1, k3])
def test_k1_and_k3_are_unbiased(op):
    # Within 4 standard errors of the truth: an unbiased estimator fails this for 1 seed in 16 000.
    estimates, error = _sampled(op)
    assert abs(estimates.mean().item() - KL) < 4 * error


def test_k2_is_biased():
    # Its mean is 1/2 sum p log^2(p/q) = 0.743 for a KL of 0.530: hundreds of standard errors away, 50 are asked.
    estimates, error = _sampled(k2)
    assert abs(estimates.mean().item() - KL) > 50 * error
    its_own = sum(p * math.log(p / q) ** 2 / 2 for p, q in zip(P, Q, strict=True))
    assert abs(estimates.mean().item() - its_own) < 4 * error


def test_k3_spreads_less_than_k1():
    # The standard error of a sample variance is about sqrt((m4 - v^2) / n); their difference is 20 of them or more.
    variances, errors = [], []
    for op in (k1, k3):
        estimates, _ = _sampled(op)
        centred = estimates - estimates.mean()
        variances.append(centred.square().mean().item())
        errors.append(math.sqrt((centred.pow(4).mean().item() - variances[-1] ** 2) / len(estimates)))
    assert variances[0] - variances[1] > 20 * math.hypot(*errors)


def test_k1_may_be_negative_and_k3_never_is():
    assert _sampled(k1)[0].min() < 0
    assert _sampled(k3)[0].min() >= 0


def test_what_each_estimators_gradient_does():
    """In expectation over the policy's own samples: k1's is 0, k2's that of KL(p || q), k3's that of KL(q || p)."""

    def gradient(loss):
        logits = leaf(torch.tensor(P, dtype=torch.float64).log())
        return torch.autograd.grad(loss(logits.log_softmax(-1)), logits)[0]

    p, log_q = torch.tensor(P, dtype=torch.float64), torch.tensor(Q, dtype=torch.float64).log()
    of_sample = {op: gradient(lambda log_p, op=op: (p * op(log_p, log_q)).sum()) for op in (k1, k2, k3)}
    assert_close(of_sample[k1], torch.zeros(4, dtype=torch.float64))
    assert_close(of_sample[k2], gradient(lambda log_p: exact(log_p, log_q)))
    assert_close(of_sample[k3], gradient(lambda log_p: exact(log_q, log_p)))


# ---- the hinge ----------------------------------------------------------------------------------------

PER_TOKEN = draw(2, 0, 1)
SUMS = [sum(row) for row in rows(PER_TOKEN)]
THRESHOLD = sorted(SUMS)[2] + 1e-3  # three responses under it, three over


def test_the_penalty_is_the_square_of_the_excess_shared_among_the_tokens():
    excess = [max(0.0, total - THRESHOLD) for total in SUMS]
    assert sum(x > 0 for x in excess) == 3
    penalty, violation = hinge(PER_TOKEN, MASK, kl_threshold=THRESHOLD)
    shares = [[x**2 / len(row)] * len(row) for x, row in zip(excess, rows(PER_TOKEN), strict=True)]
    assert_close(penalty, padded(shares))
    assert_close(violation, torch.tensor(excess, dtype=torch.float64))
    assert_close(penalty.sum(1), torch.tensor([x**2 for x in excess], dtype=torch.float64))


def test_the_gradient_is_twice_the_excess():
    per_token = leaf(PER_TOKEN)
    penalty, violation = hinge(per_token, MASK, kl_threshold=THRESHOLD)
    penalty.sum().backward()
    assert_close(
        per_token.grad, padded([[2 * x] * len(r) for x, r in zip(violation.tolist(), rows(MASK), strict=True)])
    )
    assert not violation.requires_grad
    assert gradcheck(lambda kl: hinge(kl, MASK, kl_threshold=THRESHOLD)[0], leaf(PER_TOKEN))


def test_a_response_of_one_token_bears_its_whole_penalty():
    # (3 - 1)^2 = 4
    penalty, violation = hinge(torch.tensor([[3.0]]), torch.ones(1, 1).bool(), kl_threshold=1.0)
    assert (penalty.item(), violation.item()) == (4.0, 2.0)


def test_a_response_without_tokens_has_no_penalty():
    penalty, violation = hinge(torch.full((1, 2), math.nan), torch.zeros(1, 2).bool(), kl_threshold=0.5)
    assert penalty.tolist() == [[0.0, 0.0]]
    assert violation.tolist() == [0.0]


def test_shapes_must_agree():
    with pytest.raises(ShapeError, match="kl_BT has shape"):
        hinge(PER_TOKEN[:, 1:], MASK, kl_threshold=0.5)
