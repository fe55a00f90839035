"""Log-probs of tokens and the entropy of their distribution, against sums written out."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from rlpipe.ops.logprobs import entropy, selective_log_softmax

LOGITS = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
IDS = torch.tensor([[0, 4, 2], [3, 3, 1]])


def _probabilities(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def test_log_probs_are_the_log_softmax_at_the_token():
    expected = [
        [math.log(_probabilities(LOGITS[b, t].tolist())[IDS[b, t]]) for t in range(3)] for b in range(2)
    ]  # fmt: skip
    assert_close(selective_log_softmax(LOGITS, IDS), torch.tensor(expected, dtype=torch.float64))


def test_entropy_is_minus_the_expected_log_prob():
    expected = [
        [-sum(p * math.log(p) for p in _probabilities(LOGITS[b, t].tolist())) for t in range(3)] for b in range(2)
    ]
    assert_close(entropy(LOGITS), torch.tensor(expected, dtype=torch.float64))


def test_of_equal_logits_the_entropy_is_the_log_of_their_number():
    assert entropy(torch.zeros(1, 1, 8)).item() == pytest.approx(math.log(8))


def test_huge_logits_overflow_nowhere():
    logits = torch.tensor([[[1e4, 0.0]]])
    assert selective_log_softmax(logits, torch.tensor([[0]])).item() == 0.0
    assert entropy(logits).item() == 0.0


def test_gradients():
    logits = LOGITS.clone().requires_grad_()
    assert gradcheck(lambda x: selective_log_softmax(x, IDS), logits)
    assert gradcheck(entropy, logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_is_raised_to_float32(dtype):
    logits = LOGITS.to(dtype)
    assert_close(selective_log_softmax(logits, IDS), selective_log_softmax(logits.float(), IDS), rtol=0, atol=0)
    assert entropy(logits).dtype == torch.float32
