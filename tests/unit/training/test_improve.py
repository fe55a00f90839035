"""What an update reads: minibatches keep prompts together, and rows that nothing depends on are left out."""

import copy

import pytest
import torch

from rlpipe.models.learner import reference_of
from rlpipe.training.batching import Batching
from rlpipe.training.critic import NoCritic
from rlpipe.training.experience import Experience
from rlpipe.training.improve import Improver, shuffled
from rlpipe.types import Sampling
from tests.unit.algos.written import planned

CPU = torch.device("cpu")
EXAMPLES = [((5, 6), (7, 8, 1)), ((5, 6), (9, 1)), ((7,), (8, 9, 1)), ((7,), (10, 11, 12, 1))]
GROUPS = torch.tensor([4, 4, 9, 9])


def _experience(batching, adv_B):
    batch = batching.collate(EXAMPLES)
    mask_BT = batch.response_mask_BT
    adv_BT = torch.tensor(adv_B).unsqueeze(1) * mask_BT
    logp_BT = -3.0 * mask_BT
    zeros_BT = torch.zeros(mask_BT.shape)
    return Experience(batch, GROUPS, logp_BT, logp_BT, zeros_BT, adv_BT, zeros_BT, 0)


def _improved(name, model, adv_B, **numbers):
    """Metrics and weights after two steps on the same experience."""
    batching, policy = Batching(0, CPU, "float32", 64), copy.deepcopy(model)
    chosen = planned(name, **numbers)
    improver = Improver(chosen, policy, reference_of(policy), NoCritic(None), Sampling(1.0, 8), batching, 17)
    for step in range(2):
        metrics = improver.improve([_experience(batching, adv_B)], step, chosen.numbers.get("kl_coef", 0.0))
    return metrics, [parameter.detach().clone() for parameter in policy.parameters()]


def test_rows_are_shuffled_by_prompt_and_each_comes_once():
    orders = {tuple(shuffled(GROUPS, seed).tolist()) for seed in range(20)}
    assert orders == {(0, 1, 2, 3), (2, 3, 0, 1)}


def test_rows_with_no_advantage_are_not_read_where_nothing_else_needs_them(tiny):
    metrics, weights = _improved("dapo", tiny, [1.0, -1.0, 0.0, 0.0])
    assert metrics["policy/skipped_frac"] == 0.5
    # Read all the same they change nothing: an advantage too small for float32 to move a weight by.
    read, expected = _improved("dapo", tiny, [1.0, -1.0, 1e-30, 1e-30])
    assert read["policy/skipped_frac"] == 0.0
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-6)
    assert metrics["policy/loss"] == pytest.approx(read["policy/loss"], abs=1e-6)


def test_a_kl_term_needs_every_row(tiny):
    assert _improved("grpo", tiny, [1.0, -1.0, 0.0, 0.0], kl_coef=0.1)[0]["policy/skipped_frac"] == 0.0
    assert _improved("grpo", tiny, [1.0, -1.0, 0.0, 0.0], kl_coef=0.0)[0]["policy/skipped_frac"] == 0.5


def test_a_step_without_any_advantage_is_still_a_step(tiny):
    metrics, _ = _improved("dapo", tiny, [0.0, 0.0, 0.0, 0.0])
    assert metrics["policy/skipped_frac"] == 0.75
    assert metrics["policy/grad_norm"] == 0.0
