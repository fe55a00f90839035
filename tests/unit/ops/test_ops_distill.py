"""Distances to a teacher's distribution, against sums over the vocabulary written out."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.distill import forward_kl, generalized_jsd, reverse_kl, soft_targets
from tests.unit.ops.inputs import MASK, leaf

V = 4
_generator = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (
    torch.where(MASK.unsqueeze(-1), torch.randn(*MASK.shape, V, generator=_generator, dtype=torch.float64), math.nan)
    for _ in range(2)
)
IDS = torch.randint(V, MASK.shape, generator=_generator)
NUMBERS = {
    reverse_kl: {},
    forward_kl: {},
    generalized_jsd: {"jsd_beta": 0.3},
    soft_targets: {"distill_temperature": 2.0, "distill_alpha": 0.7},
}
_named = pytest.mark.parametrize("op", NUMBERS, ids=lambda op: op.__name__)


def _softmax(logits, temperature=1.0):
    weights = [math.exp(x / temperature) for x in logits]
    return [w / sum(weights) for w in weights]


def _kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def _jsd(student, teacher, token, beta=0.3):
    s, t = _softmax(student), _softmax(teacher)
    mixture = [beta * b + (1 - beta) * a for a, b in zip(s, t, strict=True)]
    return beta * _kl(t, mixture) + (1 - beta) * _kl(s, mixture)


def _soft(student, teacher, token, temperature=2.0, alpha=0.7):
    soft = temperature**2 * _kl(_softmax(teacher, temperature), _softmax(student, temperature))
    return alpha * soft + (1 - alpha) * -math.log(_softmax(student)[token])


FORMULAS = {
    reverse_kl: lambda s, t, _token: _kl(_softmax(s), _softmax(t)),
    forward_kl: lambda s, t, _token: _kl(_softmax(t), _softmax(s)),
    generalized_jsd: _jsd,
    soft_targets: _soft,
}


@_named
def test_formula(op):
    expected = torch.zeros(MASK.shape, dtype=torch.float64)
    for b, t in MASK.nonzero().tolist():
        expected[b, t] = FORMULAS[op](STUDENT[b, t].tolist(), TEACHER[b, t].tolist(), IDS[b, t].item())
    found = op(STUDENT, TEACHER, IDS, MASK, **NUMBERS[op])
    assert_close(found, expected)
    assert found[~MASK].count_nonzero() == 0


@_named
def test_gradients_with_nan_under_the_mask(op):
    # A few rows do: one padded on both sides, one full.
    student, teacher, ids, mask = (x[:2] for x in (STUDENT, TEACHER, IDS, MASK))
    assert gradcheck(lambda s: op(s, teacher, ids, mask, **NUMBERS[op]), leaf(student))


@_named
def test_a_student_that_is_its_teacher_is_at_distance_0(op):
    numbers = NUMBERS[op] | ({"distill_alpha": 1.0} if op is soft_targets else {})
    distance = op(STUDENT, STUDENT, IDS, MASK, **numbers)
    assert_close(distance, torch.zeros_like(distance))


def test_the_generalized_jsd_tends_to_the_two_kls():
    # JSD_b / b -> KL(teacher || student) as b -> 0, and JSD_b / (1 - b) -> KL(student || teacher) as b -> 1
    # (arXiv:2306.13649 section 3); at 1e-6 from the ends, equal to about 1e-5.
    small = 1e-6
    near_0 = generalized_jsd(STUDENT, TEACHER, IDS, MASK, jsd_beta=small) / small
    near_1 = generalized_jsd(STUDENT, TEACHER, IDS, MASK, jsd_beta=1 - small) / small
    assert_close(near_0, forward_kl(STUDENT, TEACHER, IDS, MASK), rtol=1e-4, atol=1e-5)
    assert_close(near_1, reverse_kl(STUDENT, TEACHER, IDS, MASK), rtol=1e-4, atol=1e-5)


def test_the_square_of_the_temperature_keeps_the_gradients_size():
    # As T grows, T^2 KL(teacher_T || student_T) tends to the variance over the vocabulary of the logits' difference,
    # halved (arXiv:1503.02531 eq. 4): at T = 1000 equal to about 1 in 1000.
    numbers = {"distill_temperature": 1000.0, "distill_alpha": 1.0}
    gap = (STUDENT - TEACHER)[MASK]
    expected = gap.var(-1, correction=0) / 2
    found = soft_targets(STUDENT, TEACHER, IDS, MASK, **numbers)[MASK]
    assert_close(found, expected, rtol=5e-3, atol=0)


def test_logits_over_different_vocabularies_are_refused():
    with pytest.raises(ShapeError, match=r"student logits \(6, 5, 4\), teacher logits \(6, 5, 3\); they must be equal"):
        reverse_kl(STUDENT, TEACHER[..., 1:], IDS, MASK)


@_named
def test_shapes_must_agree(op):
    with pytest.raises(ShapeError, match="ids_BT has shape"):
        op(STUDENT, TEACHER, IDS[:, 1:], MASK, **NUMBERS[op])
    with pytest.raises(ShapeError, match="logits has shape"):
        op(STUDENT[:, 1:], TEACHER[:, 1:], IDS, MASK, **NUMBERS[op])
