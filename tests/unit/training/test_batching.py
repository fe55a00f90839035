"""Micro-batches hold at most so many tokens, a shared prompt counted once, and how they are cut changes no answer."""

import pytest
import torch

from rlpipe.training.batching import Batching, consecutive

CPU = torch.device("cpu")
PROMPT, OTHER = (5, 6, 7), (8,)
EXAMPLES = [(PROMPT, (1, 2)), (OTHER, (3,)), (PROMPT, (4, 5, 6, 7)), (OTHER, (8, 9)), (PROMPT, (1,))]


def _batching(tokens: int) -> Batching:
    return Batching(0, CPU, "float32", tokens)


def test_neighbours_fill_a_range_up_to_the_limit_and_one_alone_may_exceed_it():
    assert consecutive([3, 3, 3, 9, 1, 1], 6) == [range(2), range(2, 3), range(3, 4), range(4, 6)]
    assert consecutive([], 6) == []


def test_rows_of_a_prompt_stay_together_the_longest_first():
    batching = _batching(10)
    # PROMPT: 3 tokens once and responses of 2 + 4 + 1, ten in all; OTHER: 1 and 1 + 2.
    assert batching.parts(batching.collate(EXAMPLES)) == [[0, 2, 4], [1, 3]]
    assert _batching(14).parts(batching.collate(EXAMPLES)) == [[0, 2, 4, 1, 3]]


def test_a_group_that_does_not_fit_is_parted_and_its_prompt_read_again():
    batching = _batching(8)
    # Of PROMPT's 3 tokens and responses of 2, 4 and 1: 3 + 2 leaves no room for 4; 3 + 4 + 1 fits.
    assert batching.parts(batching.collate(EXAMPLES)) == [[2, 4], [0], [1, 3]]


@pytest.mark.parametrize("tokens", [1, 4, 8, 100])
def test_what_is_read_in_parts_comes_back_row_by_row(tokens):
    batching = _batching(tokens)
    batch = batching.collate(EXAMPLES)
    length_B = batching.in_parts(batch, lambda part: part.response_mask_BT.sum(1))
    assert length_B.tolist() == [2, 1, 4, 2, 1]
