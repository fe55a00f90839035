"""The norm and its gradients are those of the formula."""

import pytest
import torch
from torch import Tensor

from rlpipe.errors import ShapeError
from rlpipe.ops.norms import rms_norm


def _formula(states: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    return weight_H * states / (states.square().mean(-1, keepdim=True) + eps).sqrt()


def test_three_four_is_divided_by_the_root_of_twelve_and_a_half():
    # sqrt((9 + 16) / 2) = 3.5355
    normed = rms_norm(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 10.0]), eps=0.0)
    torch.testing.assert_close(normed, torch.tensor([0.84853, 11.3137]))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_value_and_gradients_are_the_formulas(shape):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    weight_H = torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)
    torch.testing.assert_close(rms_norm(states, weight_H, eps=0.1), _formula(states, weight_H, 0.1))
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, eps=0.1), (states, weight_H))


@pytest.mark.parametrize("weight_H", [torch.ones(4), torch.ones(5, dtype=torch.float64)])
def test_another_width_or_type_is_refused(weight_H):
    with pytest.raises(ShapeError, match=r"expected \[..., H\] and \[H\] of one type"):
        rms_norm(torch.ones(2, 5), weight_H, eps=1e-6)
