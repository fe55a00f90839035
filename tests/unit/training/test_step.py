"""One optimizer step: schedules, clipping, and gradients that no split can change."""

import pytest
import torch
from torch import nn

from rlpipe.config.schema import Optim
from rlpipe.errors import TrainingError
from rlpipe.training.step import Learner, scheduled


def _optim(**changes):
    values = {"lr": 0.1, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1.0}
    return Optim(**(values | changes))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1]),
        ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25]),
        # (1 + cos(pi k / 4)) / 2 for k = 0..3
        ("cosine", [1 / 3, 2 / 3, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_schedules_after_a_warm_up_of_2(schedule, expected):
    optim = _optim(schedule=schedule, warmup_steps=2)
    assert [scheduled(i, 6, optim) for i in range(6)] == pytest.approx(expected, abs=1e-6)


def test_the_reported_norm_is_before_the_clip():
    model = nn.Linear(1, 1, bias=False)
    update = Learner(model, _optim(max_grad_norm=0.5), 1).update([3.0 * model.weight.sum()])
    assert update["grad_norm"] == pytest.approx(3.0)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_micro_batches_add_up_to_the_whole_step(size):
    torch.manual_seed(0)
    inputs = torch.randn(5, 3, dtype=torch.float64)

    def weights_after(at_once):
        torch.manual_seed(1)
        model = nn.Linear(3, 1).double()
        learner = Learner(model, _optim(), 3)
        for _ in range(3):
            learner.update(model(inputs[part]).square().sum() / 5 for part in torch.arange(5).split(at_once))
        return model.weight.detach()

    torch.testing.assert_close(weights_after(size), weights_after(5), rtol=0, atol=1e-12)


def test_a_gradient_that_is_not_finite_stops_before_anything_changes():
    model = nn.Linear(1, 1, bias=False)
    before = model.weight.item()
    with pytest.raises(TrainingError, match="not finite"):
        Learner(model, _optim(), 1).update([model.weight.sum() * float("inf")])
    assert model.weight.item() == before


def test_weight_decay_spares_vectors():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    Learner(model, _optim(weight_decay=0.5), 1).update([0.0 * (model.weight.sum() + model.bias.sum())])
    assert model.weight[0, 0].item() == pytest.approx(1 - 0.1 * 0.5)  # 1 - lr * decay
    assert model.bias.item() == 1.0
