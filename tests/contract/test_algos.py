"""What holds for every entry of ALGOS, whichever ops it chose: a new algorithm is covered by its line in the table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.nn.functional import pad
from torch.testing import assert_close

from rlpipe.algos import ALGOS
from rlpipe.algos.base import DistillationAlgo, PolicyAlgo, PreferenceAlgo, StageAlgo
from rlpipe.algos.objective import estimate, policy_objective, ratio_metrics, value_objective
from rlpipe.algos.plan import OPTIONAL, plan
from rlpipe.algos.sections import section, sectionable
from rlpipe.config import parse
from rlpipe.config.load import validated
from rlpipe.config.schema import Numbers, Params, Policy, RLBudget
from rlpipe.errors import ConfigError
from rlpipe.ops.kl import exact
from rlpipe.ops.logprobs import entropy, selective_log_softmax
from rlpipe.ops.masking import zero_outside
from rlpipe.ops.needs import needs_of
from rlpipe.ops.preference import bradley_terry
from rlpipe.ops.steps import step_cross_entropy
from rlpipe.types import PairLogps, Totals

PARAMS = parse((Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8"))
MASK = torch.arange(5) < torch.tensor([4, 2, 5, 1, 3, 5]).unsqueeze(1)
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])
V, MAX_TOKENS = 6, 7


ONLINE = [algo for algo in ALGOS.values() if isinstance(algo, PolicyAlgo)]


def _each(algos):
    return pytest.mark.parametrize("algo", algos, ids=lambda algo: algo.name)


everyone, online = _each(ALGOS.values()), _each(ONLINE)
offline = _each([algo for algo in ALGOS.values() if isinstance(algo, PreferenceAlgo)])
distilling = _each([algo for algo in ALGOS.values() if isinstance(algo, DistillationAlgo)])
staged = _each([algo for algo in ALGOS.values() if isinstance(algo, StageAlgo)])


def _draw(generator, low, high, *shape):
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


# ---- online: from a step's logits, values and rewards to gradients ------------------------------------


def _step():
    """A step whose policy has moved a little from the one that sampled, and more from its reference."""
    generator = torch.Generator().manual_seed(0)
    logits = _draw(generator, -1, 1, 6, 5, V)
    return {
        "logits": logits,
        "old_logits": logits + _draw(generator, -0.3, 0.3, 6, 5, V),
        "ref_logits": logits + _draw(generator, -1, 1, 6, 5, V),
        "reward": _draw(generator, -1, 1, 6, 5),
        "value": _draw(generator, -1, 1, 6, 5),
        "old_value": _draw(generator, -1, 1, 6, 5),
        "ids": torch.randint(V, (6, 5), generator=generator),
    }


def _numbers(algo):
    """Its source's numbers, with an entropy bonus, which any of them may have."""
    return {"entropy_coef": 0.01, **algo.recommended}


def _logp(logits, ids, mask):
    return zero_outside(selective_log_softmax(logits, ids), mask)


def _kl(algo, step, logits, mask):
    """As a trainer does: nothing under the mask reaches the estimator, whose gradient there would be 0 * NaN."""
    if needs_of(algo.kl.estimator).vocabulary:
        return algo.kl.estimator(logits.log_softmax(-1), step["ref_logits"].log_softmax(-1))
    ref = _logp(step["ref_logits"], step["ids"], mask)
    return algo.kl.estimator(_logp(logits, step["ids"], mask), ref)


def _advantage(algo, step, mask, groups):
    sampled = _kl(algo, step, step["old_logits"], mask)
    return estimate(
        algo, _numbers(algo), _numbers(algo).get("kl_coef", 0.0), step["reward"], sampled, step["old_value"], groups,
        mask,
    )[1]  # fmt: skip


def _learn(algo, step, mask=MASK, groups=GROUPS, parts=None):
    """Loss, metrics and gradients of one update, made of the micro-batches `parts` (default: in one piece)."""
    parts = parts or [torch.arange(len(mask))]
    advantage = _advantage(algo, step, mask, groups)
    weight = algo.aggregate(mask, groups, MAX_TOKENS)
    totals = Totals(tokens=int(mask.sum()), sequences=len(mask))
    logits, value = (step[name].clone().requires_grad_() for name in ("logits", "value"))
    numbers, loss, metrics, made = _numbers(algo), 0.0, {}, []
    for rows in parts:
        part = {name: tensor[rows] for name, tensor in step.items()}
        real = mask[rows]
        objectives = [
            policy_objective(
                algo, numbers, numbers.get("kl_coef", 0.0), _logp(logits[rows], part["ids"], real),
                _kl(algo, part, logits[rows], real), entropy(logits[rows]),
                _logp(part["old_logits"], part["ids"], real), advantage.adv_BT[rows], real, weight[rows], totals,
            )
        ]  # fmt: skip
        made += objectives
        if algo.has_critic:
            objectives.append(
                value_objective(
                    algo, numbers, value[rows], part["old_value"], advantage.return_BT[rows], real, totals
                )
            )  # fmt: skip
        for objective in objectives:
            objective.loss.backward()
            loss += objective.loss.item()
            metrics |= {name: metrics.get(name, 0.0) + x for name, x in objective.metrics.items()}
    grads = {"logits": logits.grad} | ({"value": value.grad} if algo.has_critic else {})
    return loss, metrics | ratio_metrics(made), grads


def _same(one, other, at=None):
    """Equal losses, metrics and gradients; `at` picks the second's positions that the first has."""
    assert one[0] == pytest.approx(other[0], rel=1e-6, abs=1e-6)
    assert one[1] == pytest.approx(other[1], rel=1e-6, abs=1e-6)
    for name, grad in one[2].items():
        assert grad.abs().sum() > 0, name
        assert_close(grad, other[2][name] if at is None else at(other[2][name]), rtol=1e-6, atol=1e-6)


@online
@pytest.mark.parametrize(("left", "right"), [(0, 3), (2, 0), (2, 3)])
def test_more_padding_left_or_right_changes_nothing(algo, left, right):
    step = _step()
    wider = {
        name: pad(x, (0, 0, left, right) if x.dim() == 3 else (left, right), value=0 if name == "ids" else 9.0)
        for name, x in step.items()
    }
    learnt = _learn(algo, wider, pad(MASK, (left, right)))
    _same(_learn(algo, step), learnt, at=lambda grad: grad[:, left : left + 5])


@online
def test_nan_under_the_mask_reaches_neither_loss_nor_gradient(algo):
    # What a forward pass gives under the mask is finite; its log-probs, KL, entropy, values and rewards are made NaN.
    step, numbers = _step(), _numbers(algo)
    totals = Totals(tokens=int(MASK.sum()), sequences=6)
    coef, weight = numbers.get("kl_coef", 0.0), algo.aggregate(MASK, GROUPS, MAX_TOKENS)

    def learn(fill):
        def put(x):
            return torch.where(MASK, x.detach(), fill).requires_grad_()

        logp = put(selective_log_softmax(step["logits"], step["ids"]))
        old = put(selective_log_softmax(step["old_logits"], step["ids"])).detach()
        kl, spread = put(_kl(algo, step, step["logits"], MASK)), put(entropy(step["logits"]))
        value, old_value, reward = put(step["value"]), put(step["old_value"]).detach(), put(step["reward"]).detach()
        _, advantage = estimate(algo, numbers, coef, reward, kl.detach(), old_value, GROUPS, MASK)
        assert advantage.adv_BT.isfinite().all()
        assert advantage.return_BT.isfinite().all()
        objective = policy_objective(
            algo, numbers, coef, logp, kl, spread, old, advantage.adv_BT, MASK, weight, totals
        )  # fmt: skip
        loss, metrics = objective.loss, dict(objective.metrics)
        if algo.has_critic:
            critic = value_objective(algo, numbers, value, old_value, advantage.return_BT, MASK, totals)
            loss, metrics = loss + critic.loss, metrics | critic.metrics
        loss.backward()
        grads = [x.grad if x.grad is not None else torch.zeros_like(x) for x in (logp, kl, spread, value)]
        return loss.item(), metrics, grads

    clean, dirty = learn(0.0), learn(math.nan)
    assert dirty[0] == pytest.approx(clean[0])
    assert dirty[1] == pytest.approx(clean[1])
    for clean_grad, dirty_grad in zip(clean[2], dirty[2], strict=True):
        assert_close(dirty_grad, clean_grad)
        assert dirty_grad[~MASK].count_nonzero() == 0


@online
def test_order_of_rows_does_not_matter(algo):
    step, order = _step(), torch.tensor([5, 2, 0, 3, 1, 4])
    shuffled = {name: x[order] for name, x in step.items()}
    learnt = _learn(algo, shuffled, MASK[order], GROUPS[order])
    _same(_learn(algo, step), learnt, at=lambda grad: grad[order.argsort()])


@online
@pytest.mark.parametrize("parts", [[1] * 6, [2, 2, 2], [4, 2], [1, 5]], ids=str)
def test_any_split_into_micro_batches_gives_the_same_update(algo, parts):
    step = _step()
    _same(_learn(algo, step), _learn(algo, step, parts=list(torch.arange(6).split(parts))))


@online
def test_at_step_0_the_ratio_is_1_and_the_kl_0(algo):
    step = _step()
    step |= {"old_logits": step["logits"], "ref_logits": step["logits"], "reward": torch.zeros(6, 5).double()}
    assert_close(_kl(algo, step, step["logits"], MASK)[MASK], torch.zeros(int(MASK.sum())).double())
    _, metrics, _ = _learn(algo, step)
    assert metrics["policy/ratio_mean"] == metrics["policy/ratio_min"] == metrics["policy/ratio_max"] == 1
    assert metrics["kl/old_new"] == 0
    # Nothing is clipped, cut or penalised yet.
    for name in metrics.keys() & {"policy/clip_frac_low", "policy/clip_frac_high", "is/trunc_frac", "kl/penalty"}:
        assert metrics[name] == 0, name
    assert metrics.get("is/ess", 1.0) == pytest.approx(1.0)


@online
def test_a_better_sample_becomes_more_likely(algo):
    # At step 0, samples differ in reward alone: 1 for the first of each group, 0 for its siblings; values say 1/2.
    step = _step()
    half, reward = torch.full((6, 5), 0.5).double(), torch.zeros(6, 5).double()
    reward[0, 3], reward[3, 0] = 1.0, 1.0  # on the last real token
    logp = _logp(step["logits"], step["ids"], MASK).requires_grad_()
    zero, weight = torch.zeros_like(reward), algo.aggregate(MASK, GROUPS, MAX_TOKENS)
    numbers, totals = dict(algo.recommended), Totals(tokens=int(MASK.sum()), sequences=6)
    _, advantage = estimate(algo, numbers, 0.0, reward, zero, half, GROUPS, MASK)
    policy_objective(
        algo, numbers, 0.0, logp, zero, zero, logp.detach(), advantage.adv_BT, MASK, weight, totals
    ).loss.backward()
    downhill = -logp.grad.sum(1)
    for better, worse in ((0, 1), (0, 2), (3, 4), (3, 5)):
        assert downhill[worse] <= 0 < downhill[better]


@_each([algo for algo in ONLINE if algo.kl.placed != "none"])
def test_the_kl_term_pulls_back_what_has_strayed(algo):
    # Without reward or value, the first sample of each group is e times as likely, token by token, as its reference has
    # it; its siblings are where they were. Whatever the KL stands in, the strayed one must become less likely.
    numbers = dict(algo.recommended) | ({"kl_threshold": 0.0} if algo.kl.placed == "hinge" else {})
    zero, totals = torch.zeros(6, 5).double(), Totals(tokens=int(MASK.sum()), sequences=6)
    logp, ref = torch.full((6, 5), -1.0).double().requires_grad_(), torch.full((6, 5), -1.0).double()
    ref[[0, 3]] = -2.0
    kl = algo.kl.estimator(logp, ref)
    _, advantage = estimate(algo, numbers, 1.0, zero, kl.detach(), zero, GROUPS, MASK)
    weight = algo.aggregate(MASK, GROUPS, MAX_TOKENS)
    policy_objective(
        algo, numbers, 1.0, logp, kl, zero, logp.detach(), advantage.adv_BT, MASK, weight, totals
    ).loss.backward()
    assert (logp.grad[[0, 3]].sum(1) > 0).all()


# ---- pairs --------------------------------------------------------------------------------------------


def _pairs(n=4):
    generator = torch.Generator().manual_seed(0)
    sums = [_draw(generator, -6, -2, n) for _ in range(4)]
    lengths = [torch.randint(1, 6, (n,), generator=generator).double() for _ in range(2)]
    return PairLogps(*sums, *lengths, torch.tensor(0.3).double())


def _rows(pairs, rows):
    return PairLogps(**{k: v if v.dim() == 0 else v[rows] for k, v in vars(pairs).items()})


@offline
def test_a_pairs_loss_does_not_depend_on_the_pairs_beside_it(algo):
    # So any split and any order give the same sum.
    pairs, numbers = _pairs(), algo.recommended
    whole = algo.pair_loss(pairs, **numbers)
    for rows in (torch.tensor([2]), torch.tensor([3, 0])):
        part = algo.pair_loss(_rows(pairs, rows), **numbers)
        assert_close(part.loss_B, whole.loss_B[rows])
        for name, value in part.metrics_B.items():
            assert_close(value, whole.metrics_B[name][rows])


@offline
def test_a_preferred_response_becomes_more_likely(algo):
    at_start = torch.tensor([-3.0, -3.0]).double()
    chosen, rejected = (at_start.clone().requires_grad_() for _ in range(2))
    length = torch.tensor([4.0, 2.0]).double()
    pairs = PairLogps(chosen, rejected, at_start, at_start, length, length, torch.tensor(0.0).double())
    algo.pair_loss(pairs, **algo.recommended).loss_B.sum().backward()
    assert (chosen.grad < 0).all()
    assert (rejected.grad > 0).all()


@offline
def test_what_a_pair_loss_reads_of_the_reference_is_what_it_says(algo):
    # At step 0 the implicit rewards are 0 with a reference; without one, it may hold anything.
    pairs, numbers, needed = _pairs(), algo.recommended, needs_of(algo.pair_loss)
    other = PairLogps(**vars(pairs) | {"chosen_ref_B": pairs.chosen_B + 1, "rejected_ref_B": pairs.rejected_B - 1})
    start = PairLogps(**vars(pairs) | {"chosen_ref_B": pairs.chosen_B, "rejected_ref_B": pairs.rejected_B})
    if needed.reference:
        assert algo.pair_loss(start, **numbers).metrics_B["preference/chosen_reward"].count_nonzero() == 0
        assert algo.pair_loss(start, **numbers).metrics_B["preference/rejected_reward"].count_nonzero() == 0
    else:
        assert_close(algo.pair_loss(other, **numbers).loss_B, algo.pair_loss(pairs, **numbers).loss_B)
    nearer = PairLogps(**vars(pairs) | {"kl_baseline": torch.tensor(0.0).double()})
    moved = (algo.pair_loss(nearer, **numbers).loss_B - algo.pair_loss(pairs, **numbers).loss_B).abs().max()
    assert (moved > 0) == needed.kl_baseline


# ---- distillation -------------------------------------------------------------------------------------


def _divergence(algo, student, step, mask=MASK):
    return algo.divergence(student, step["ref_logits"], step["ids"], mask, **algo.recommended)


@distilling
def test_distillation_ignores_padding_rows_beside_it_and_nan_under_the_mask(algo):
    step = _step()
    plain = _divergence(algo, step["logits"], step)
    wide = {name: pad(step[name], (0, 0, 2, 3), value=math.nan) for name in ("logits", "ref_logits")}
    wide["ids"] = pad(step["ids"], (2, 3))
    padded = _divergence(algo, wide["logits"], wide, pad(MASK, (2, 3)))
    assert_close(padded, pad(plain, (2, 3)))

    order = torch.tensor([5, 2, 0])
    few = {name: x[order] for name, x in step.items()}
    assert_close(_divergence(algo, few["logits"], few, MASK[order]), plain[order])

    grads = []
    for fill in (0.0, math.nan):
        student = torch.where(MASK.unsqueeze(-1), step["logits"], fill).requires_grad_()
        _divergence(algo, student, step).sum().backward()
        grads.append(student.grad)
    assert_close(grads[1], grads[0])
    assert grads[1][~MASK].count_nonzero() == 0


@distilling
def test_a_student_moves_to_its_teacher(algo):
    step = _step()
    step["ids"] = step["ref_logits"].argmax(-1)  # where the token counts too, it is the teacher's
    student = step["logits"].clone().requires_grad_()
    _divergence(algo, student, step).sum().backward()

    def distance(logits):
        return exact(step["ref_logits"].log_softmax(-1), logits.log_softmax(-1))[MASK].mean()

    assert distance(student - 0.1 * student.grad) < distance(student)


# ---- stages -------------------------------------------------------------------------------------------


@staged
def test_a_stages_loss_teaches_what_it_should(algo):
    numbers = dict(algo.recommended)
    scores = torch.zeros(1, 3).double().requires_grad_()
    real = torch.tensor([[True, True, False]])
    if algo.loss is bradley_terry:
        algo.loss(scores[:, 0], scores[:, 1], torch.zeros(1).double(), **numbers).loss_B.sum().backward()
        assert scores.grad[0, 0] < 0 < scores.grad[0, 1]
    elif algo.loss is step_cross_entropy:
        algo.loss(scores, torch.tensor([[1.0, 0.0, 1.0]]).double(), real, **numbers).sum().backward()
        assert scores.grad[0, 0] < 0 < scores.grad[0, 1]
        assert scores.grad[0, 2] == 0
    else:
        assert algo.loss is selective_log_softmax
        (-algo.loss(scores.unsqueeze(0), torch.tensor([[1]]), **numbers)).sum().backward()
        assert scores.grad[0, 1] < 0 < scores.grad[0, 0]


# ---- the table ----------------------------------------------------------------------------------------


@everyone
def test_it_stands_under_its_own_name_with_its_source(algo):
    assert ALGOS[algo.name] is algo
    assert algo.source
    assert algo.requires


@everyone
def test_every_number_it_reads_has_a_range(algo):
    # Each of them is at least 0, so -1 is outside of every range, be it a count or a real number.
    written = Params.model_fields[algo.stage].annotation if isinstance(algo, StageAlgo) else Numbers
    shape = get_args(written)[1] if get_args(written) else written  # of a section with a part for each model
    for name in algo.numbers:
        with pytest.raises(ConfigError, match=f"at.{name}=-1: Input should be greater than"):
            validated(shape, {name: -1}, at="at")


@everyone
def test_it_recommends_exactly_the_numbers_it_reads(algo):
    optional = OPTIONAL | {name for name, field in RLBudget.model_fields.items() if not field.is_required()}
    assert algo.numbers <= set(algo.recommended)
    assert set(algo.recommended) - algo.numbers <= (optional if isinstance(algo, PolicyAlgo) else set())


@pytest.mark.parametrize("name", sectionable())
def test_its_section_makes_a_valid_plan(name):
    written = section(name, PARAMS.recipe)
    made = plan(name, Policy.model_validate(written), PARAMS.rollout)
    assert made.algo == ALGOS[name]
    assert set(made.numbers) >= made.algo.numbers


@online
def test_a_critic_and_its_loss_come_together(algo):
    assert algo.has_critic == (algo.value_loss is not None)
