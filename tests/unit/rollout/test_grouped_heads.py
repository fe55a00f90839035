"""Attention over shared heads without copying them is transformers' own attention."""

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rlpipe.rollout import attention as module
from rlpipe.rollout.attention import grouped_heads


class _Layer(nn.Module):
    num_key_value_groups = 3
    is_causal = True


@pytest.fixture
def states():
    """Queries of 6 heads, keys and values of 2: two rows of three columns, one new token each."""
    torch.manual_seed(0)
    return torch.randn(2, 6, 1, 8), torch.randn(2, 2, 3, 8), torch.randn(2, 2, 3, 8)


def _outputs(states, mask):
    ours, _ = module._attention(_Layer(), *states, mask, scaling=0.5)
    theirs, _ = sdpa_attention_forward(_Layer(), *states, mask, scaling=0.5)
    return ours, theirs


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, True, True], [False, True, True]]).view(2, 1, 1, 3)])
def test_it_is_what_copies_would_give(states, mask):
    torch.testing.assert_close(*_outputs(states, mask))


def test_what_no_row_sees_changes_nothing(states):
    mask = torch.tensor([[True, True, True], [False, True, True]]).view(2, 1, 1, 3)
    ours, _ = _outputs(states, mask)
    query, key, value = states
    key[1, :, 0] = 100.0
    changed, _ = _outputs((query, key, value), mask)
    assert torch.equal(ours, changed)


def test_only_sdpa_is_replaced_and_only_within(tiny):
    for own, within in (("sdpa", module._NAME), ("eager", "eager")):
        tiny.config._attn_implementation = own
        with grouped_heads(tiny.config):
            assert tiny.config._attn_implementation == within
        assert tiny.config._attn_implementation == own
