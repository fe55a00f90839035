"""While it decodes, a model holds its weights in another order; before and after, it is the same model."""

import torch
from torch.nn.functional import linear

from rlpipe.config.schema import Adapter
from rlpipe.models.learner import learner
from rlpipe.rollout.layout import by_columns


def test_within_weights_lie_by_columns_with_the_same_values(tiny):
    own = dict(tiny.named_parameters())
    with by_columns(tiny):
        within = dict(tiny.named_parameters())
        moved = {name for name in own if within[name] is not own[name]}
        assert moved == {name for name in own if name.endswith("_proj.weight")}  # not the head, not the embedding
        for name in moved:
            assert torch.equal(within[name], own[name])
            assert within[name].stride() == (1, own[name].shape[0])


def test_afterwards_the_parameters_are_the_very_same(tiny):
    own = {name: (id(p), p.data_ptr(), p.requires_grad) for name, p in tiny.named_parameters()}
    with by_columns(tiny):
        pass
    assert {name: (id(p), p.data_ptr(), p.requires_grad) for name, p in tiny.named_parameters()} == own


def test_an_adapter_counts(tiny):
    policy = learner(tiny, Adapter(rank=2, alpha=4, dropout=0.0))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = policy(input_ids=ids).logits
        with by_columns(policy):
            torch.testing.assert_close(policy(input_ids=ids).logits, expected)
        assert torch.equal(policy(input_ids=ids).logits, expected)


def test_another_order_is_no_other_product():
    torch.manual_seed(0)
    rows, weight = torch.randn(5, 7), torch.randn(3, 7)
    torch.testing.assert_close(linear(rows, weight.t().contiguous().t()), linear(rows, weight))
