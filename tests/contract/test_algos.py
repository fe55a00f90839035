"""What holds for every entry of ALGOS, whichever ops it chose."""

import pytest
import torch
from torch.nn.functional import pad

from rlpipe.algos import ALGOS
from rlpipe.algos.base import PolicyAlgo, PreferenceAlgo, picked
from rlpipe.algos.objective import policy_objective, value_objective
from rlpipe.config.schema import Numbers
from rlpipe.types import Totals

ONLINE = [algo for algo in ALGOS.values() if isinstance(algo, PolicyAlgo)]
OFFLINE = [algo for algo in ALGOS.values() if isinstance(algo, PreferenceAlgo)]
NUMBERS = {
    "kl_coef": 0.1, "clip_low": 0.2, "clip_high": 0.25, "gamma": 0.98, "lam": 0.9,
    "value_coef": 0.5, "value_clip": 0.2, "beta": 0.2, "label_smoothing": 0.05,
}  # fmt: skip
LENGTHS = [4, 2, 5, 1, 3, 5]
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])


def _named(algos):
    return pytest.mark.parametrize("algo", algos, ids=lambda algo: algo.name)


def _inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5).expand(6, 5) < torch.tensor(LENGTHS).unsqueeze(1)
    names = ("logp", "old", "ref", "reward", "value", "old_value")
    values = {n: -torch.rand(6, 5, generator=generator, dtype=torch.float64) for n in names}
    return values, mask


def _loss(algo, values, mask, groups=GROUPS, totals=None):
    """The step's policy and value loss, with advantages estimated on the rows given."""
    totals = totals or Totals(tokens=int(mask.sum()), sequences=len(mask))
    advantage = algo.advantage(values["reward"], values["old_value"], groups, mask, **picked(algo.advantage, NUMBERS))
    return _loss_with(algo, values, mask, advantage.adv_BT, advantage.return_BT, totals)


def _loss_with(algo, values, mask, adv, returns, totals):
    policy = policy_objective(
        algo, NUMBERS, values["logp"], values["logp"], values["old"], values["ref"], adv, mask, totals
    )
    if algo.value_loss is None:
        return policy.loss
    return (
        policy.loss + value_objective(algo, NUMBERS, values["value"], values["old_value"], returns, mask, totals).loss
    )


def _grads(algo, values, mask, **options):
    values = {k: v.clone().requires_grad_(k in ("logp", "value")) for k, v in values.items()}
    _loss(algo, values, mask, **options).backward()
    return values["logp"].grad, values["value"].grad if algo.value_loss else torch.zeros_like(values["logp"])


@_named(ONLINE)
def test_more_padding_changes_nothing(algo):
    values, mask = _inputs()
    wider = {k: pad(v, (0, 3), value=float("nan")) for k, v in values.items()}
    torch.testing.assert_close(_loss(algo, wider, pad(mask, (0, 3))), _loss(algo, values, mask))


@_named(ONLINE)
def test_nan_under_the_mask_reaches_neither_loss_nor_gradient(algo):
    values, mask = _inputs()
    dirty = {k: torch.where(mask, v, float("nan")) for k, v in values.items()}
    for clean_grad, dirty_grad in zip(_grads(algo, values, mask), _grads(algo, dirty, mask), strict=True):
        torch.testing.assert_close(dirty_grad, torch.where(mask, clean_grad, torch.zeros_like(clean_grad)))


@_named(ONLINE)
def test_order_of_rows_does_not_matter(algo):
    values, mask = _inputs()
    order = torch.tensor([5, 2, 0, 3, 1, 4])
    shuffled = {k: v[order] for k, v in values.items()}
    torch.testing.assert_close(_loss(algo, shuffled, mask[order], GROUPS[order]), _loss(algo, values, mask))


@_named(ONLINE)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_split_into_micro_batches_gives_the_same_gradient(algo, size):
    values, mask = _inputs()
    totals = Totals(tokens=int(mask.sum()), sequences=len(mask))
    whole = _grads(algo, values, mask)
    advantage = algo.advantage(values["reward"], values["old_value"], GROUPS, mask, **picked(algo.advantage, NUMBERS))
    leaves = {k: v.clone().requires_grad_(k in ("logp", "value")) for k, v in values.items()}
    for start in range(0, 6, size):
        rows = slice(start, start + size)
        part = {k: v[rows] for k, v in leaves.items()}
        _loss_with(algo, part, mask[rows], advantage.adv_BT[rows], advantage.return_BT[rows], totals).backward()
    torch.testing.assert_close(leaves["logp"].grad, whole[0], rtol=0, atol=1e-12)
    if algo.value_loss:
        torch.testing.assert_close(leaves["value"].grad, whole[1], rtol=0, atol=1e-12)


@_named(ONLINE)
def test_at_step_0_the_ratio_is_1_and_the_kl_0(algo):
    values, mask = _inputs()
    same = {**values, "old": values["logp"], "ref": values["logp"]}
    totals = Totals(tokens=int(mask.sum()), sequences=6)
    zero = torch.zeros_like(values["logp"])
    result = policy_objective(algo, NUMBERS, same["logp"], same["logp"], same["old"], same["ref"], zero, mask, totals)
    assert result.metrics["policy/ratio_mean"] == pytest.approx(1)
    assert result.ratio_max == 1
    assert result.loss == 0  # no advantage, no KL: nothing to learn


@_named(ONLINE)
def test_a_better_sample_becomes_more_likely(algo):
    # Siblings differ in reward alone; one step down the gradient must raise the better one's log-prob.
    _, mask = _inputs()
    zero = torch.zeros(6, 5, dtype=torch.float64)
    reward = zero.clone()
    reward[0, 3], reward[3, 0] = 1.0, 1.0  # the last real token of the first row of each group
    values = {"logp": zero - 1, "old": zero - 1, "ref": zero - 1, "value": zero, "old_value": zero, "reward": reward}
    gradient = _grads(algo, values, mask)[0].sum(1)
    assert gradient[0] < 0 < gradient[1]
    assert gradient[3] < 0 < gradient[4]


@_named(OFFLINE)
def test_a_preferred_response_becomes_more_likely(algo):
    chosen = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-3.0], dtype=torch.float64)
    algo.pair_loss(chosen, rejected, reference, reference, **picked(algo.pair_loss, NUMBERS)).loss_B.sum().backward()
    assert chosen.grad < 0 < rejected.grad


@pytest.mark.parametrize("algo", ALGOS.values(), ids=lambda algo: algo.name)
def test_every_number_an_algorithm_reads_has_a_range(algo):
    assert algo.numbers <= set(Numbers.model_fields)


@pytest.mark.parametrize("name", ALGOS)
def test_an_algorithm_stands_under_its_own_name_with_its_source(name):
    assert ALGOS[name].name == name
    assert "arXiv:" in ALGOS[name].source
