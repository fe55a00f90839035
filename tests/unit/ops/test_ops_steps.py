"""Cross-entropy of step labels, at the steps' ends only."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.steps import step_cross_entropy
from tests.unit.ops.inputs import MASK, draw, leaf, padded, rows, sigmoid

SCORES = draw(0, -3, 3)
LABELS = (draw(1, 0, 1) > 0.5).double().where(MASK, math.nan)


def test_minus_the_log_prob_of_the_label():
    expected = [
        [-math.log(sigmoid(x)) if label == 1 else -math.log(1 - sigmoid(x)) for x, label in zip(*pair, strict=True)]
        for pair in zip(rows(SCORES), rows(LABELS), strict=True)
    ]
    assert_close(step_cross_entropy(SCORES, LABELS, MASK), padded(expected))


def test_the_gradient_is_the_error_of_the_probability():
    # d/dx -[y log s(x) + (1 - y) log s(-x)] = s(x) - y
    scores = leaf(SCORES)
    step_cross_entropy(scores, LABELS, MASK).sum().backward()
    assert_close(scores.grad, torch.where(MASK, scores.detach().sigmoid() - LABELS, 0.0))
    assert gradcheck(lambda x: step_cross_entropy(x, LABELS, MASK), leaf(SCORES))


def test_shapes_must_agree():
    for scores, labels in ((SCORES[:, 1:], LABELS), (SCORES, LABELS[:, 1:])):
        with pytest.raises(ShapeError, match="has shape"):
            step_cross_entropy(scores, labels, MASK)
