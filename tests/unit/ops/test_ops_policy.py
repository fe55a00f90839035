"""Every policy loss against its formula, written over lists of the real tokens, and its gradient in closed form."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops.needs import needs_of
from rlpipe.ops.policy import dual_clip, gspo, ppo_clip, reinforce, truncated_is, truncated_is_sequence
from tests.unit.ops.inputs import MASK, draw, leaf, padded, rows

LOGP, OLD, ADV = draw(0, -2, -0.5), draw(1, -2, -0.5), draw(2, -2, 2)
LOW, HIGH = 0.2, 0.3
CLIP = {"clip_low": LOW, "clip_high": HIGH}
NUMBERS = {
    reinforce: {},
    ppo_clip: CLIP,
    dual_clip: {**CLIP, "dual_clip": 1.5},
    gspo: {"clip_low": 0.02, "clip_high": 0.03},
    truncated_is: {"is_cap": 1.2},
    truncated_is_sequence: {"is_cap": 1.2},
}
_named = pytest.mark.parametrize("op", NUMBERS, ids=lambda op: op.__name__)


def _tokens(formula):
    """[B, T]: `formula(logp, old, adv)` at each real token, 0 elsewhere."""
    lists = zip(rows(LOGP), rows(OLD), rows(ADV), strict=True)
    return padded([[formula(*token) for token in zip(*row, strict=True)] for row in lists])


def _per_row(formula):
    """[B, T]: `formula(logps, olds)` of each row, at each of its real tokens."""
    lists = zip(rows(LOGP), rows(OLD), strict=True)
    return padded([[formula(logps, olds)] * len(logps) for logps, olds in lists])


def _loss(op):
    return op(LOGP, OLD, ADV, MASK, **NUMBERS[op])


def _grad(op, adv=ADV):
    logp = leaf(LOGP)
    op(logp, OLD, adv, MASK, **NUMBERS[op]).loss_BT.sum().backward()
    return logp.grad


def _clipped(r, a, low=LOW, high=HIGH):
    return -min(r * a, max(1 - low, min(1 + high, r)) * a)


def _slope(r, a, low=LOW, high=HIGH):
    """d/dlogp of the clipped surrogate: -r A where the plain branch is the smaller one, or the clip is not reached."""
    return 0.0 if (a > 0 and r > 1 + high) or (a < 0 and r < 1 - low) else -r * a


RATIO = _tokens(lambda logp, old, _: math.exp(logp - old))
GEOMETRIC = _per_row(lambda logps, olds: math.exp((sum(logps) - sum(olds)) / len(logps)))
PRODUCT = _per_row(lambda logps, olds: math.exp(sum(logps) - sum(olds)))


def _zip(formula, *tensors):
    """[B, T]: `formula` of the numbers at each real token, 0 elsewhere."""
    lists = zip(*(rows(tensor) for tensor in tensors), strict=True)
    return padded([[formula(*token) for token in zip(*row, strict=True)] for row in lists])


# ---- values and gradients -----------------------------------------------------------------------------


def test_reinforce():
    assert_close(_loss(reinforce).loss_BT, _tokens(lambda logp, _, a: -a * logp))
    assert_close(_grad(reinforce), _tokens(lambda _logp, _old, a: -a))


def test_ppo_clip():
    assert_close(_loss(ppo_clip).loss_BT, _zip(_clipped, RATIO, ADV))
    assert_close(_grad(ppo_clip), _zip(_slope, RATIO, ADV))


def test_dual_clip():
    def bounded(r, a):
        return min(_clipped(r, a), -1.5 * a) if a < 0 else _clipped(r, a)

    loss = _loss(dual_clip)
    assert_close(loss.loss_BT, _zip(bounded, RATIO, ADV))
    assert_close(_grad(dual_clip), _zip(lambda r, a: 0.0 if a < 0 and r > 1.5 else _slope(r, a), RATIO, ADV))
    hit = _zip(lambda r, a: float(a < 0 and r > 1.5), RATIO, ADV)
    assert_close(loss.metrics_BT["policy/dual_clip_frac"].double(), hit)
    assert 0 < hit.sum() < MASK.sum()


def test_gspo():
    low, high = NUMBERS[gspo]["clip_low"], NUMBERS[gspo]["clip_high"]
    assert_close(_loss(gspo).loss_BT, _zip(lambda s, a: _clipped(s, a, low, high), GEOMETRIC, ADV))


def test_gspo_shares_the_gradient_of_a_sequence_equally_among_its_tokens():
    # With one advantage a row: d/dlogp_t of sum_t l = |y| * slope * (1 / |y|) = slope, the same for all tokens.
    low, high = NUMBERS[gspo]["clip_low"], NUMBERS[gspo]["clip_high"]
    adv = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.5, 1.0], dtype=torch.float64).unsqueeze(1).expand(6, 5)
    assert_close(_grad(gspo, adv), _zip(lambda s, a: _slope(s, a, low, high), GEOMETRIC, adv))


@pytest.mark.parametrize(("op", "ratio"), [(truncated_is, RATIO), (truncated_is_sequence, PRODUCT)])
def test_truncated_importance_sampling(op, ratio):
    # The weight is a constant: the gradient is -w A, at any distance from the old policy.
    weight = _zip(lambda r: min(r, 1.2), ratio)
    loss = _loss(op)
    assert_close(loss.loss_BT, _zip(lambda w, a, logp: -w * a * logp, weight, ADV, LOGP))
    assert_close(_grad(op), _zip(lambda w, a: -w * a, weight, ADV))
    assert_close(loss.weight_BT[MASK], weight[MASK])
    cut = _zip(lambda r: float(r > 1.2), ratio)[MASK]
    assert_close(loss.metrics_BT["is/trunc_frac"][MASK].double(), cut)
    assert 0 < cut.sum() < MASK.sum()


@pytest.mark.parametrize("op", [reinforce, ppo_clip, dual_clip, gspo], ids=lambda op: op.__name__)
def test_gradients_with_nan_under_the_mask(op):
    # Not for truncated importance sampling, whose gradient on purpose is not that of its value.
    assert gradcheck(lambda logp: op(logp, OLD, ADV, MASK, **NUMBERS[op]).loss_BT, leaf(LOGP))


# ---- ratios and metrics -------------------------------------------------------------------------------


@_named
def test_the_ratio_is_the_one_the_loss_works_with_and_1_under_the_mask(op):
    ratio = GEOMETRIC if op is gspo else RATIO
    loss = op(leaf(LOGP), OLD, ADV, MASK, **NUMBERS[op])
    assert_close(loss.ratio_BT, torch.where(MASK, ratio, 1.0))
    kept = [loss.ratio_BT, *loss.metrics_BT.values(), *([] if loss.weight_BT is None else [loss.weight_BT])]
    assert not any(tensor.requires_grad for tensor in kept)
    assert loss.loss_BT.requires_grad


@_named
def test_the_distance_to_the_old_policy_is_k3_on_its_own_samples(op):
    # x ~ old, so KL(old || new) has k3 = (r - 1) - log r with r = new / old.
    ratio = GEOMETRIC if op is gspo else RATIO
    expected = _zip(lambda r: r - 1 - math.log(r), ratio)
    assert_close(_loss(op).metrics_BT["kl/old_new"], expected)


@pytest.mark.parametrize("op", [ppo_clip, dual_clip, gspo], ids=lambda op: op.__name__)
def test_clipped_shares_count_where_the_clip_takes_the_gradient(op):
    low, high = NUMBERS[op]["clip_low"], NUMBERS[op]["clip_high"]
    ratio = GEOMETRIC if op is gspo else RATIO
    metrics = _loss(op).metrics_BT
    below = _zip(lambda r, a: float(a < 0 and r < 1 - low), ratio, ADV)
    above = _zip(lambda r, a: float(a > 0 and r > 1 + high), ratio, ADV)
    assert_close(metrics["policy/clip_frac_low"].double(), below)
    assert_close(metrics["policy/clip_frac_high"].double(), above)
    assert below.sum() > 0
    assert above.sum() > 0


def test_on_the_very_boundary_and_without_advantage_nothing_counts_as_clipped():
    # Ratios that are powers of 2, exact in binary; the clip is [1/2, 2], the dual clip 4.
    logp = torch.tensor([[0.5, 2.0, 0.25, 8.0, 4.0]], dtype=torch.float64).log()
    adv = torch.tensor([[-1.0, 1.0, 0.0, 0.0, -1.0]], dtype=torch.float64)
    loss = dual_clip(
        logp, torch.zeros_like(logp), adv, torch.ones(1, 5).bool(), clip_low=0.5, clip_high=1.0, dual_clip=4.0
    )
    for name in ("policy/clip_frac_low", "policy/clip_frac_high", "policy/dual_clip_frac"):
        assert loss.metrics_BT[name].sum() == 0, name


def test_a_weight_at_the_cap_is_not_cut():
    logp = torch.tensor([[2.0]], dtype=torch.float64).log()
    loss = truncated_is(logp, torch.zeros_like(logp), torch.ones_like(logp), torch.ones(1, 1).bool(), is_cap=2.0)
    assert loss.metrics_BT["is/trunc_frac"].item() == 0


# ---- worked example -----------------------------------------------------------------------------------


def test_the_four_cases_of_the_clip():
    # Clip 0.2. A > 0, r = 1.5: min(1.5, 1.2) = 1.2, cut.   A > 0, r = 0.5: min(0.5, 0.8) = 0.5, free.
    #           A < 0, r = 0.5: min(-0.5, -0.8) = -0.8, cut. A < 0, r = 1.5: min(-1.5, -1.2) = -1.5, free.
    logp = leaf(torch.tensor([[1.5, 0.5, 0.5, 1.5]], dtype=torch.float64).log())
    adv = torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    loss = ppo_clip(logp, torch.zeros(1, 4), adv, torch.ones(1, 4).bool(), clip_low=0.2, clip_high=0.2)
    loss.loss_BT.sum().backward()
    assert loss.loss_BT.tolist()[0] == pytest.approx([-1.2, -0.5, 0.8, 1.5])
    assert logp.grad.tolist()[0] == pytest.approx([0.0, -0.5, 0.0, 1.5])


# ---- shapes and needs ---------------------------------------------------------------------------------


@_named
def test_shapes_must_agree(op):
    for cut in range(3):
        inputs = [tensor[:, 1:] if i == cut else tensor for i, tensor in enumerate((LOGP, OLD, ADV))]
        with pytest.raises(ShapeError, match="has shape"):
            op(*inputs, MASK, **NUMBERS[op])


@_named
def test_what_each_needs(op):
    assert needs_of(op).on_policy == (op is reinforce)
    assert needs_of(op).behaviour == (op in (truncated_is, truncated_is_sequence))
