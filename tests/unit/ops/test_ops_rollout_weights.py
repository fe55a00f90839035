"""Importance weights between sampler and trainer, against loops over tokens."""

from __future__ import annotations

import math

import pytest
import torch

from rlpipe.algos import ALGOS
from rlpipe.algos.base import PolicyAlgo, picked
from rlpipe.errors import ShapeError
from rlpipe.ops.importance import LEVELS, MODES, mismatch

MASK = [[True, True, True], [True, True, False]]
# Differences of 0, log 2, -log 2; log 4, log 4, and garbage where nothing counts.
OWN = [[-1.0, -1.0, -2.0], [-0.5, -0.25, float("nan")]]
SAMPLER = [[-1.0, -1.0 - math.log(2), -2.0 + math.log(2)], [-0.5 - math.log(4), -0.25 - math.log(4), 7.0]]


def _tensors():
    return torch.tensor(OWN), torch.tensor(SAMPLER), torch.tensor(MASK)


def _looped(level, mode, cap):
    rows = []
    for own, sampler, mask in zip(OWN, SAMPLER, MASK, strict=True):
        logs = [a - b if m else 0.0 for a, b, m in zip(own, sampler, mask, strict=True)]
        if level == "sequence":
            logs = [sum(logs) if m else 0.0 for m in mask]
        ratios = [math.exp(x) for x in logs]
        rows.append([min(r, cap) if mode == "truncate" else (r if r <= cap else 0.0) for r in ratios])
    return rows


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cap", [1.5, 2.5, 100.0])
def test_a_weight_is_what_a_loop_over_tokens_gives(level, mode, cap):
    weight_BT = MODES[mode](LEVELS[level](*_tensors()), cap=cap)
    torch.testing.assert_close(weight_BT, torch.tensor(_looped(level, mode, cap)))


def test_a_worked_example():
    # r = 1, 2, 1/2 | 4, 4; whole responses 1 | 16; a cap of 3 truncates 4 and 16 to 3 and masks them to 0.
    own, sampler, mask = _tensors()
    token, sequence = LEVELS["token"](own, sampler, mask), LEVELS["sequence"](own, sampler, mask)
    torch.testing.assert_close(token, torch.tensor([[1, 2, 0.5], [4, 4, 1]]))
    torch.testing.assert_close(sequence, torch.tensor([[1.0, 1, 1], [16, 16, 1]]))
    torch.testing.assert_close(MODES["truncate"](token, cap=3.0)[1], torch.tensor([3.0, 3, 1]))
    torch.testing.assert_close(MODES["mask"](sequence, cap=3.0)[1], torch.tensor([0.0, 0, 1]))


def test_mismatch_speaks_of_real_tokens_before_any_cap():
    found = mismatch(*_tensors())
    ratios = [1.0, 2.0, 0.5, 4.0, 4.0]
    assert found["kl/rollout_train"] == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 5)
    assert found["is/rollout_ratio_min"] == pytest.approx(0.5)
    assert found["is/rollout_ratio_max"] == pytest.approx(4.0)
    assert found["is/rollout_ratio_p50"] == pytest.approx(2.0)
    assert found["is/rollout_ratio_p01"] == pytest.approx(0.5 + 0.04 * 0.5)  # position 0.04 between 0.5 and 1
    assert found["is/rollout_ratio_p99"] == pytest.approx(4.0)


def test_the_same_log_probs_weigh_1():
    own, _, mask = _tensors()
    own = own.nan_to_num()
    for level in LEVELS.values():
        assert torch.equal(level(own, own, mask), torch.ones(2, 3))
    assert mismatch(own, own, mask)["kl/rollout_train"] == 0.0


def test_shapes_that_differ_are_refused():
    own, sampler, mask = _tensors()
    for level in LEVELS.values():
        with pytest.raises(ShapeError, match="sampler_logp_BT"):
            level(own, sampler[:1], mask)


@pytest.mark.parametrize("name", [name for name, algo in ALGOS.items() if isinstance(algo, PolicyAlgo)])
def test_a_weight_on_the_advantage_is_a_weight_on_the_loss(name):
    # What the trainer relies on: it weighs advantages, and the weight of a token must come out of every loss.
    algo = ALGOS[name]
    torch.manual_seed(0)
    logp_BT, old_BT, adv_BT = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    weight_BT, mask_BT = torch.rand(4, 6, dtype=torch.float64) * 2, torch.rand(4, 6) > 0.2
    numbers = picked(algo.policy_loss, algo.recommended)
    plain = algo.policy_loss(logp_BT, old_BT, adv_BT, mask_BT, **numbers).loss_BT
    weighted = algo.policy_loss(logp_BT, old_BT, adv_BT * weight_BT, mask_BT, **numbers).loss_BT
    torch.testing.assert_close(weighted, plain * weight_BT)
