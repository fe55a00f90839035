"""A critic that learns from what it reads, as it reads it, is the critic that reads first and learns then."""

from dataclasses import replace

import pytest
import torch

from rlpipe.models.learner import reference_of
from rlpipe.models.load import new_critic, save
from rlpipe.ops.masking import zero_outside
from rlpipe.training import critic as module
from rlpipe.training.batching import Batching
from rlpipe.training.critic import SeparateCritic
from rlpipe.training.experience import Experience
from rlpipe.training.improve import Improver
from rlpipe.types import Sampling, Totals
from tests.unit.algos.written import planned

CPU = torch.device("cpu")
EXAMPLES = [((5, 6), (7, 8, 1)), ((5, 6), (9, 1)), ((7,), (8, 9, 1)), ((7,), (10, 11, 12, 1))]
GROUPS = torch.tensor([0, 0, 1, 1])


@pytest.fixture
def folder(tiny, tokenizer, tmp_path):
    save(tiny, tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def batching():
    """Two micro-batches for the examples."""
    return Batching(0, CPU, "float32", 9)


@pytest.fixture
def reads(monkeypatch):
    """The rows of each of the critic's forward passes."""
    seen = []

    def counted(model, batch):
        seen.append(len(batch))
        return own(model, batch)

    own = module.token_scores
    monkeypatch.setattr(module, "token_scores", counted)
    return seen


def _critic(folder, batching, chosen):
    torch.manual_seed(3)
    model = new_critic(folder, CPU)
    torch.nn.init.normal_(model.score.weight)  # values that differ between tokens
    return SeparateCritic(model, chosen, 8, batching), model


def _returns(batch):
    """Returns that depend on the values, as a bootstrapped one's do."""
    return lambda rows, value_RT: zero_outside(0.5 * value_RT + 1.0, batch.response_mask_BT[rows])


def _experience(batch, value_BT, return_BT):
    mask_BT = batch.response_mask_BT
    logp_BT, adv_BT = -3.0 * mask_BT, 1.0 * mask_BT
    return Experience(batch, GROUPS, logp_BT, logp_BT, value_BT, adv_BT, return_BT, 0)


def test_reading_and_learning_at_once_is_reading_and_then_learning(folder, batching, reads):
    chosen, batch = planned("ppo"), batching.collate(EXAMPLES)
    totals = Totals(int(batch.response_mask_BT.sum()), len(batch))
    (first, model), (second, other) = (_critic(folder, batching, chosen) for _ in range(2))
    expected_BT = first.values(batch)
    everything = range(len(batch))
    metrics = first.update(_experience(batch, expected_BT, _returns(batch)(list(everything), expected_BT)), totals)
    assert sorted(reads) == [2, 2, 2, 2]
    reads.clear()
    value_BT, at_once = second.read_and_learn(batch, totals, _returns(batch))
    assert sorted(reads) == [2, 2]
    torch.testing.assert_close(value_BT, expected_BT)
    assert value_BT.unique().numel() > len(batch)
    assert at_once == pytest.approx(metrics)
    assert metrics["value/grad_norm"] > 0
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("epochs", "minibatches", "passes"), [(1, 1, 1), (2, 1, 2), (1, 2, 2)])
def test_samples_are_read_once_less_where_the_first_update_learns_from_all(
    epochs, minibatches, passes, tiny, folder, batching, reads
):
    plain = planned("ppo")
    chosen = replace(plain, budget=plain.budget.model_copy(update={"epochs": epochs, "minibatches": minibatches}))
    batch = batching.collate(EXAMPLES)
    critic, _ = _critic(folder, batching, chosen)
    improver = Improver(chosen, tiny, reference_of(tiny), critic, Sampling(1.0, 8), batching, 17)
    for step in range(2):
        reads.clear()
        value_BT = improver.values(batch, _returns(batch))
        experience = _experience(batch, value_BT, _returns(batch)(list(range(len(batch))), value_BT))
        metrics = improver.improve([experience], step, 0.0)
        assert sum(reads) == passes * len(batch)
        assert metrics["value/grad_norm"] > 0
