"""How much each token weighs: shares written out as fractions, and the mean that each aggregation stands for."""

import pytest
import torch
from torch.testing import assert_close

from rlpipe.errors import ShapeError
from rlpipe.ops import aggregate
from rlpipe.ops.aggregate import constant_length, prompt_mean, sequence_mean, sequence_sum, token_mean
from tests.unit.ops.inputs import GROUPS, MASK, draw, rows

# Row lengths 3, 5, 1, 2, 3, 4: 18 tokens, 6 sequences. Group 7 has rows 0, 2, 4 (7 tokens), group 3 the others (11).
LENGTHS = [3, 5, 1, 2, 3, 4]
ALL = [token_mean, sequence_mean, sequence_sum, constant_length, prompt_mean]


def _row_weights(aggregated: torch.Tensor) -> list[float]:
    """The weight that all real tokens of each row share."""
    assert aggregated.dtype == torch.float32
    assert (aggregated[~MASK] == 0).all()
    for weights in rows(aggregated):
        assert len(set(weights)) == 1
    return [weights[0] for weights in rows(aggregated)]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (token_mean, [1 / 18] * 6),
        (sequence_mean, [1 / (length * 6) for length in LENGTHS]),
        (sequence_sum, [1 / 6] * 6),
        (constant_length, [1 / (6 * 20)] * 6),
        (prompt_mean, [1 / (7 * 2), 1 / (11 * 2)] * 3),
    ],
)
def test_each_tokens_share(op, expected):
    assert _row_weights(op(MASK, GROUPS, 20)) == pytest.approx(expected)


def test_the_weighted_sums_are_the_means_they_are_named_for():
    loss = draw(0, -1, 1)
    lists = rows(loss)
    flat = [x for row in lists for x in row]
    by_prompt = [[x for row in lists[first::2] for x in row] for first in (0, 1)]
    means = {
        token_mean: sum(flat) / 18,
        sequence_mean: sum(sum(row) / len(row) for row in lists) / 6,
        sequence_sum: sum(sum(row) for row in lists) / 6,
        constant_length: sum(sum(row) for row in lists) / 6 / 20,
        prompt_mean: sum(sum(tokens) / len(tokens) for tokens in by_prompt) / 2,
    }
    assert set(means) == set(ALL)
    for op, expected in means.items():
        # The weights are float32, so sums agree to its precision.
        assert_close((op(MASK, GROUPS, 20) * loss.nan_to_num()).sum().item(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("op", ALL)
def test_a_token_alone_has_the_whole_weight(op):
    alone = torch.tensor([[True, False, False]])
    whole = 1 / 20 if op is constant_length else 1.0
    assert_close(op(alone, torch.tensor([4]), 20), torch.tensor([[whole, 0.0, 0.0]]))


@pytest.mark.parametrize("op", ALL)
def test_responses_without_tokens_weigh_nothing_and_make_no_nan(op):
    # A prompt of which nothing is left, as group 5, and a step of which nothing is left.
    mask, groups = torch.tensor([[True, False], [False, False], [False, False]]), torch.tensor([1, 1, 5])
    weights = op(mask, groups, 2)
    assert weights[0, 0] > 0
    assert weights.count_nonzero() == 1
    assert op(torch.zeros(2, 3).bool(), torch.tensor([0, 1]), 3).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("op", ALL)
def test_a_mask_that_is_not_bool_is_refused(op):
    with pytest.raises(ShapeError, match="expected bool"):
        op(MASK.int(), GROUPS, 20)


def test_these_are_all():
    assert {op.__name__ for op in ALL} == {
        name for name, op in vars(aggregate).items() if getattr(op, "__module__", "") == aggregate.__name__
        and not name.startswith("_")
    }  # fmt: skip
