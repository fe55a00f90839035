"""Advantages against numbers worked by hand and float64 references written from the formulas."""

import math

import pytest
import torch

from rlpipe.errors import ShapeError
from rlpipe.ops.advantages import EPS, gae, gae_whitened, group_zscore
from rlpipe.ops.rewards import kl_penalised, terminal


def _rows(scores, lengths):
    """Terminal rewards on rows of different length, garbage (NaN) under the mask."""
    width = max(lengths)
    mask = torch.arange(width).expand(len(lengths), width) < torch.tensor(lengths).unsqueeze(1)
    reward = terminal(torch.tensor(scores, dtype=torch.float64), mask)
    return torch.where(mask, reward, float("nan")), mask


def test_group_zscore_worked_by_hand():
    # One group: scores 1, 0, 0, 1. Mean 1/2; sample variance (4 * 1/4) / 3 = 1/3.
    reward, mask = _rows([1, 0, 0, 1], [3, 1, 2, 3])
    adv = group_zscore(reward, torch.zeros_like(reward), torch.zeros(4, dtype=torch.long), mask)
    expected = 0.5 / (math.sqrt(1 / 3) + EPS)
    assert adv.adv_BT[0].tolist() == pytest.approx([expected] * 3)
    assert adv.adv_BT[1].tolist() == pytest.approx([-expected, 0, 0])
    assert adv.return_BT[2].tolist() == [0, 0, 0]


def test_group_zscore_is_zero_where_all_siblings_score_alike():
    reward, mask = _rows([0.7, 0.7, 1, 0], [2, 2, 2, 2])
    adv = group_zscore(reward, torch.zeros_like(reward), torch.tensor([0, 0, 1, 1]), mask).adv_BT
    assert adv[:2].abs().max() == 0
    assert adv[2, 0] > 0 > adv[3, 0]


def test_group_zscore_of_the_study_guides_example():
    # Rewards 0.9 0.8 0.7 0.6 0.3 0.2 0.5 0.4: mean 0.55, sample variance 0.42 / 7 = 0.06.
    scores = [0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.5, 0.4]
    reward, mask = _rows(scores, [1] * 8)
    adv = group_zscore(reward, torch.zeros_like(reward), torch.zeros(8, dtype=torch.long), mask).adv_BT[:, 0]
    assert adv.tolist() == pytest.approx([(s - 0.55) / (math.sqrt(0.06) + EPS) for s in scores])


def test_gae_worked_by_hand():
    # Two steps, rewards 0 and 1, values 0.5 and 0.25, gamma 0.9, lam 0.8:
    #   delta_1 = 1 - 0.25 = 0.75;  delta_0 = 0 + 0.9 * 0.25 - 0.5 = -0.275
    #   A_1 = 0.75;                 A_0 = -0.275 + 0.72 * 0.75 = 0.265
    reward, mask = _rows([1.0], [2])
    value = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    result = gae(reward, value, torch.zeros(1), mask, gamma=0.9, lam=0.8)
    assert result.adv_BT[0].tolist() == pytest.approx([0.265, 0.75])
    assert result.return_BT[0].tolist() == pytest.approx([0.765, 1.0])


@pytest.mark.parametrize("lengths", [[5, 3, 1], [4, 4, 4]])
def test_gae_is_the_discounted_sum_of_deltas(lengths):
    generator = torch.Generator().manual_seed(0)
    reward, value = (torch.randn(3, max(lengths), generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.arange(max(lengths)).expand(3, -1) < torch.tensor(lengths).unsqueeze(1)
    gamma, lam = 0.97, 0.9
    result = gae(reward, value, torch.zeros(3), mask, gamma=gamma, lam=lam)
    for b, length in enumerate(lengths):
        v = [*value[b, :length].tolist(), 0.0]
        deltas = [reward[b, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
            assert result.adv_BT[b, t].item() == pytest.approx(expected)
        assert result.adv_BT[b, length:].abs().sum() == 0


def test_whitened_gae_has_mean_0_and_spread_1_over_real_tokens():
    reward, mask = _rows([1.0, -2.0, 0.5], [4, 2, 3])
    value = torch.zeros_like(reward)
    adv = gae_whitened(reward, value, torch.zeros(3), mask, gamma=1.0, lam=0.95).adv_BT[mask]
    assert adv.mean().item() == pytest.approx(0, abs=1e-12)
    assert adv.std(unbiased=False).item() == pytest.approx(1)


def test_kl_in_the_reward_is_taken_from_real_tokens_only():
    reward, mask = _rows([1.0], [2])
    kl = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    assert kl_penalised(reward, kl, mask, kl_coef=0.1).tolist() == [[-0.05, 0.975]]


def test_a_mask_that_is_not_bool_is_refused():
    reward = torch.zeros(2, 3)
    with pytest.raises(ShapeError, match="bool"):
        group_zscore(reward, reward, torch.zeros(2), torch.ones(2, 3))
