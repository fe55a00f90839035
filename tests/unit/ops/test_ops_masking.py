"""True counts, and nothing else does."""

import math

import pytest
import torch
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.masking import check_masked, last_true, masked_mean, masked_std, zero_outside

VALUES = torch.tensor([[1.0, 2.0, math.nan], [math.inf, 6.0, math.nan]], dtype=torch.float64)
MASK = torch.tensor([[True, True, False], [False, True, False]])


def test_zero_outside_gives_exact_zeros_for_nan_and_infinity():
    assert zero_outside(VALUES, MASK).tolist() == [[1.0, 2.0, 0.0], [0.0, 6.0, 0.0]]


def test_no_gradient_from_under_the_mask():
    values = VALUES.clone().requires_grad_()
    (zero_outside(values, MASK) * 3).sum().backward()
    assert values.grad.tolist() == [[3.0, 3.0, 0.0], [0.0, 3.0, 0.0]]


def test_the_mean_is_over_true_positions():
    assert masked_mean(VALUES, MASK).item() == 3.0  # (1 + 2 + 6) / 3


def test_the_standard_deviation_is_the_populations():
    assert_close(masked_std(VALUES, MASK).item(), math.sqrt(14 / 3))  # ((-2)^2 + (-1)^2 + 3^2) / 3


def test_of_one_value_the_mean_is_itself_and_the_spread_0():
    one = torch.tensor([[False, True, False], [False, False, False]])
    assert (masked_mean(VALUES, one).item(), masked_std(VALUES, one).item()) == (2.0, 0.0)


def test_of_no_value_mean_and_spread_are_0():
    nothing = torch.zeros_like(MASK)
    assert (masked_mean(VALUES, nothing).item(), masked_std(VALUES, nothing).item()) == (0.0, 0.0)


def test_the_last_true_position_of_each_row():
    mask = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 1]]).bool()
    assert last_true(mask).int().tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_a_mask_that_is_not_bool_is_refused():
    with pytest.raises(ShapeError, match=r"mask has dtype torch.int64; expected bool, True where a position counts\."):
        check_masked(torch.ones(2, 3, dtype=torch.int64))


def test_a_tensor_of_another_shape_is_refused_by_name():
    with pytest.raises(ShapeError, match=r"adv_BT has shape \(2, 4\), mask \(2, 3\); they must be equal\."):
        check_masked(MASK, logp_BT=VALUES, adv_BT=torch.zeros(2, 4))
