"""Losses against float64 references written from the formulas, and their gradients against finite differences."""

import math

import pytest
import torch

from rlpipe.errors import ShapeError
from rlpipe.ops.aggregate import sequence_mean, token_mean
from rlpipe.ops.kl import k1, k2, k3
from rlpipe.ops.logprobs import entropy, selective_log_softmax
from rlpipe.ops.masking import last_true, masked_std
from rlpipe.ops.policy import ppo_clip
from rlpipe.ops.preference import bradley_terry, dpo
from rlpipe.ops.value import explained_variance, value_clipped
from rlpipe.types import Totals

CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def _double(*values):
    return torch.tensor([values], dtype=torch.float64)


def _on(tensor):
    return torch.ones_like(tensor, dtype=torch.bool)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 2.0, -2.0),  # on policy: -A
        (1.5, 2.0, -2.6),  # gain beyond 1 + 0.3 does not count: -1.3 * 2
        (0.5, 2.0, -1.0),  # the worse side is never clipped: -0.5 * 2
        (0.5, -2.0, 1.6),  # -min(-1, -1.6): below 1 - 0.2 the push down stops
        (1.5, -2.0, 3.0),  # raising a bad token is paid in full
    ],
)
def test_ppo_clip_on_every_side(ratio, advantage, loss):
    result = ppo_clip(_double(math.log(ratio)), _double(0.0), _double(advantage), _on(_double(0.0)), **CLIP)
    assert result.loss_BT.item() == pytest.approx(loss)


def test_ppo_clip_gradient():
    old, adv = _double(-1.0, -0.5, -2.0), _double(1.0, -1.0, 0.3)
    logp = _double(-1.1, -0.45, -1.95).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ppo_clip(x, old, adv, _on(adv), **CLIP).loss_BT, logp)


def test_ppo_clip_on_policy_gradient_is_minus_advantage():
    # r = 1 there, so d(-r A)/dlogp = -A: plain policy gradient.
    logp = _double(-1.0, -0.5).requires_grad_()
    adv = _double(0.7, -0.2)
    ppo_clip(logp, logp.detach(), adv, _on(adv), **CLIP).loss_BT.sum().backward()
    assert logp.grad.tolist() == [[-0.7, 0.2]]


def test_ppo_clip_lets_nothing_through_the_mask():
    mask = torch.tensor([[True, False]])
    logp = _double(-1.0, float("nan")).requires_grad_()
    loss = ppo_clip(logp, _double(-1.0, float("inf")), _double(1.0, float("nan")), mask, **CLIP).loss_BT
    loss.sum().backward()
    assert loss[0, 1] == 0
    assert logp.grad.tolist() == [[-1.0, 0.0]]


def test_ppo_clip_refuses_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match="adv_BT"):
        ppo_clip(_double(0.0), _double(0.0), _double(0.0, 1.0), _on(_double(0.0)), **CLIP)


def test_value_clipped_takes_the_larger_error():
    # old 0, clip 0.2, return 1: V 0.5 -> clipped 0.2: max(0.25, 0.64) / 2; V -0.1 stays: 1.21 / 2.
    result = value_clipped(_double(0.5, -0.1), _double(0, 0), _double(1, 1), _on(_double(0, 0)), value_clip=0.2)
    assert result.loss_BT[0].tolist() == pytest.approx([0.32, 0.605])
    assert result.metrics_BT["value/clip_frac"].tolist() == [[1.0, 0.0]]


def test_value_clipped_gradient():
    old, returns = _double(0.1, -0.2), _double(1.0, 0.5)
    value = _double(0.15, -0.25).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: value_clipped(v, old, returns, _on(old), value_clip=0.2).loss_BT, value)


def test_explained_variance_of_perfect_constant_and_wrong():
    returns = _double(1.0, 2.0, 3.0)
    on = _on(returns)
    assert explained_variance(returns, returns, on).item() == pytest.approx(1)
    assert explained_variance(_double(7, 7, 7), returns, on).item() == pytest.approx(0)
    assert explained_variance(-returns, returns, on).item() == pytest.approx(-3)  # Var(2R) = 4 Var(R)


def test_dpo_from_the_formula():
    chosen, rejected, ref_c, ref_r = -4.0, -5.0, -4.5, -4.0
    beta, s = 0.3, 0.1
    h = beta * ((chosen - ref_c) - (rejected - ref_r))
    expected = -(1 - s) * math.log(1 / (1 + math.exp(-h))) - s * math.log(1 / (1 + math.exp(h)))
    tensors = [torch.tensor([x], dtype=torch.float64) for x in (chosen, rejected, ref_c, ref_r)]
    result = dpo(*tensors, beta=beta, label_smoothing=s)
    assert result.loss_B.item() == pytest.approx(expected)
    assert result.metrics_B["dpo/margin"].item() == pytest.approx(h)


def test_dpo_starts_at_log_2():
    same = torch.tensor([-3.0, -7.0])
    loss = dpo(same, same, same, same, beta=0.1, label_smoothing=0.0).loss_B
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)


def test_bradley_terry_gradient_is_minus_the_losing_probability():
    # d/dc of -log sigmoid(c - r) = -sigmoid(r - c)
    chosen = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([1.0], dtype=torch.float64)
    bradley_terry(chosen, rejected).loss_B.sum().backward()
    assert chosen.grad.item() == pytest.approx(-1 / (1 + math.exp(-0.6)))


def test_kl_estimators_of_the_literatures_example():
    # Policy -1.2 -2.5 -0.8 -0.3 against reference -1.3 -2.0 -0.9 -1.5: k1 = 0.1 - 0.5 + 0.1 + 1.2 = 0.9.
    policy, reference = _double(-1.2, -2.5, -0.8, -0.3), _double(-1.3, -2.0, -0.9, -1.5)
    assert k1(policy, reference).sum().item() == pytest.approx(0.9)
    log_ratios = [-0.1, 0.5, -0.1, -1.2]
    assert k2(policy, reference).sum().item() == pytest.approx(sum(x * x / 2 for x in log_ratios))
    assert k3(policy, reference).sum().item() == pytest.approx(sum(math.exp(x) - 1 - x for x in log_ratios))


def test_k1_and_k3_are_unbiased_and_k3_varies_less():
    # Two distributions over 5 outcomes, 400,000 draws: the mean of each estimator stands within 4 standard
    # errors of the exact KL (a false alarm once in 16,000 seeds), and k2 does not.
    generator = torch.Generator().manual_seed(3)
    policy = torch.tensor([0.35, 0.3, 0.2, 0.1, 0.05], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.2], dtype=torch.float64)
    exact = (policy * (policy / reference).log()).sum().item()
    drawn = torch.multinomial(policy, 400_000, replacement=True, generator=generator)
    logp, ref = policy.log()[drawn], reference.log()[drawn]
    means, errors = {}, {}
    for op in (k1, k2, k3):
        values = op(logp, ref)
        means[op], errors[op] = values.mean().item(), values.std().item() / math.sqrt(len(values))
    assert abs(means[k1] - exact) < 4 * errors[k1]
    assert abs(means[k3] - exact) < 4 * errors[k3]
    assert abs(means[k2] - exact) > 4 * errors[k2]
    assert errors[k3] < errors[k1]


def test_log_probs_and_entropy_against_log_softmax():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = torch.tensor([[0, 6, 3], [2, 2, 5]])
    whole = logits.log_softmax(-1)
    expected = whole.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(selective_log_softmax(logits, ids), expected.float())
    torch.testing.assert_close(entropy(logits), -(whole.exp() * whole).sum(-1).float())


def test_aggregations_worked_by_hand():
    loss = torch.tensor([[1.0, 2.0, 3.0], [10.0, float("nan"), float("nan")]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    totals = Totals(tokens=4, sequences=2)
    assert token_mean(loss, mask, totals).item() == pytest.approx(16 / 4)
    assert sequence_mean(loss, mask, totals).item() == pytest.approx((2 + 10) / 2)


def test_the_last_real_token():
    mask = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    assert last_true(mask).tolist() == [[False, True, False], [False, False, True], [False, False, False]]


def test_masked_std_is_the_population_one():
    values, mask = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False])
    assert masked_std(values, mask).item() == pytest.approx(1.0)
