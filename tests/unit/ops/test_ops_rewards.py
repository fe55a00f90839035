"""From a score per sequence to a reward per token: numbers by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.rewards import clipped, kl_penalised, scaled, standardised, terminal

SCORES = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)


def test_scaled():
    assert scaled(SCORES, reward_scale=2.0).tolist() == [6.0, -2.0, 1.0]


def test_clipped_on_both_sides():
    assert clipped(torch.tensor([3.0, -3.0, 0.25]), reward_clip=0.5).tolist() == [0.5, -0.5, 0.25]


def test_standardised():
    assert_close(standardised(SCORES, 1.0, 2.0), torch.tensor([1.0, -1.0, -0.25], dtype=torch.float64))


def test_a_spread_near_0_is_not_blown_up():
    # (1e-8 - 0) / (1e-8 + 1e-8) = 1/2, and 0 where there is no spread at all.
    assert_close(standardised(torch.tensor([1e-8]), 0.0, 1e-8), torch.tensor([0.5]))
    assert standardised(torch.tensor([2.0]), 2.0, 0.0).item() == 0.0


def test_the_score_stands_on_the_last_real_token():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 0]]).bool()
    assert terminal(SCORES, mask).tolist() == [[0, 3.0, 0], [0, 0, -1.0], [0, 0.5, 0]]


def test_the_kl_is_taken_off_on_real_tokens():
    reward = torch.tensor([[0.0, 1.0, math.nan]])
    kl = torch.tensor([[0.5, -2.0, math.nan]])
    mask = torch.tensor([[True, True, False]])
    assert_close(kl_penalised(reward, kl, mask, kl_coef=0.1), torch.tensor([[-0.05, 1.2, 0.0]]))


def test_shapes_must_agree():
    with pytest.raises(ShapeError, match="kl_BT has shape"):
        kl_penalised(torch.zeros(1, 2), torch.zeros(1, 3), torch.ones(1, 2).bool(), kl_coef=0.1)
    with pytest.raises(ShapeError, match="reward_BT has shape"):
        kl_penalised(torch.zeros(1, 3), torch.zeros(1, 2), torch.ones(1, 2).bool(), kl_coef=0.1)
