"""Critic losses against their formulas, and how much of the returns' variance the critic explains."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.value import explained_variance, value_clipped, value_squared
from tests.unit.ops.inputs import MASK, draw, leaf, padded, rows

VALUE, OLD, RETURN = draw(0, -1, 1), draw(1, -1, 1), draw(2, -1, 1)
CLIP = 0.2


def _over_tokens(formula):
    return [[formula(*t) for t in zip(*row, strict=True)] for row in zip(rows(VALUE), rows(OLD), rows(RETURN), strict=True)]  # fmt: skip  # noqa: E501


def _near(v, old):
    return old + max(-CLIP, min(CLIP, v - old))


def test_half_the_squared_error():
    loss = value_squared(VALUE, OLD, RETURN, MASK)
    assert_close(loss.loss_BT, padded(_over_tokens(lambda v, _old, g: (v - g) ** 2 / 2)))
    assert loss.metrics_BT == {}


def test_half_the_larger_of_plain_and_clipped_error():
    loss = value_clipped(VALUE, OLD, RETURN, MASK, value_clip=CLIP)
    assert_close(
        loss.loss_BT,
        padded(_over_tokens(lambda v, old, g: max((v - g) ** 2, (_near(v, old) - g) ** 2) / 2)),
    )
    share = _over_tokens(lambda v, old, g: float((_near(v, old) - g) ** 2 > (v - g) ** 2))
    assert_close(loss.metrics_BT["value/clip_frac"].double(), padded(share))
    assert 0 < sum(map(sum, share)) < MASK.sum()  # both branches were taken


def test_worked_example_of_the_clip():
    # Old value 0, return 1, clip 0.2. At V = 0.5 the clipped value is 0.2: max(0.25, 0.64) / 2 = 0.32, and no
    # gradient. At V = -0.5 it is -0.2: max(2.25, 1.44) / 2 = 1.125, gradient V - R = -1.5.
    value = torch.tensor([[0.5, -0.5]], dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros_like(value), torch.ones_like(value)
    loss = value_clipped(value, zero, one, torch.ones(1, 2).bool(), value_clip=0.2)
    loss.loss_BT.sum().backward()
    assert loss.loss_BT.tolist()[0] == pytest.approx([0.32, 1.125])
    assert value.grad.tolist()[0] == pytest.approx([0.0, -1.5])
    assert loss.metrics_BT["value/clip_frac"].tolist() == [[1.0, 0.0]]


def test_inside_the_clip_nothing_counts_as_clipped():
    loss = value_clipped(OLD + 0.1, OLD, RETURN, MASK, value_clip=CLIP)
    assert_close(loss.loss_BT, value_squared(OLD + 0.1, OLD, RETURN, MASK).loss_BT)
    assert loss.metrics_BT["value/clip_frac"].sum() == 0


def test_gradients_with_nan_under_the_mask():
    assert gradcheck(lambda v: value_squared(v, OLD, RETURN, MASK).loss_BT, leaf(VALUE))
    assert gradcheck(lambda v: value_clipped(v, OLD, RETURN, MASK, value_clip=CLIP).loss_BT, leaf(VALUE))


def test_explained_variance():
    flat = [t for row in zip(rows(VALUE), rows(RETURN), strict=True) for t in zip(*row, strict=True)]

    def variance(xs):
        mean = sum(xs) / len(xs)
        return sum((x - mean) ** 2 for x in xs) / len(xs)

    expected = 1 - variance([g - v for v, g in flat]) / variance([g for _, g in flat])
    assert_close(explained_variance(VALUE, RETURN, MASK).item(), expected)


def test_explained_variance_is_1_for_a_perfect_critic_and_0_for_a_constant_one():
    constant = torch.where(MASK, torch.tensor(5.0, dtype=torch.float64), math.nan)
    assert explained_variance(RETURN, RETURN, MASK).item() == 1.0
    assert explained_variance(constant, RETURN, MASK).item() == pytest.approx(0.0)


def test_of_constant_returns_the_explained_variance_is_finite():
    # Var(R) = 0 is taken as 1e-8: with V in {0, 1}, Var(R - V) = 1/4, so 1 - 0.25e8.
    value, same = torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    assert explained_variance(value, same, torch.ones(1, 2).bool()).item() == pytest.approx(1 - 0.25e8)


def test_shapes_must_agree():
    for inputs in ((VALUE[:, 1:], OLD, RETURN), (VALUE, OLD[:, 1:], RETURN), (VALUE, OLD, RETURN[:, 1:])):
        with pytest.raises(ShapeError, match="has shape"):
            value_squared(*inputs, MASK)
        with pytest.raises(ShapeError, match="has shape"):
            value_clipped(*inputs, MASK, value_clip=CLIP)
