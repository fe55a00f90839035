"""A padded batch is laid out without padding, each different prompt once with its responses behind it."""

import torch

from rlpipe.dataio.collate import collate
from rlpipe.models.packing import pack

LONG, SHORT, OTHER = (5, 6, 7, 8), (9,), (20, 21)
EXAMPLES = [(LONG, (8, 9, 10, 1)), (SHORT, (11, 1)), (LONG, (12, 13, 1)), (OTHER, (14, 1)), (SHORT, (15, 16, 1))]


def test_every_prompt_stands_once_and_its_responses_go_on_where_it_ends():
    packing = pack(collate(EXAMPLES, 0))
    # The trees with branches first, the largest first; then those whose one response is part of the trunk.
    assert packing.ids_N.tolist() == [5, 6, 7, 8, 8, 9, 10, 1, 12, 13, 1, 9, 11, 1, 15, 16, 1, 20, 21, 14, 1]
    assert packing.position_N.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 0, 1, 2, 1, 2, 3, 0, 1, 2, 3]


def test_it_is_known_where_the_token_before_each_response_token_stands():
    at_BS = pack(collate(EXAMPLES, 0)).at_BS
    assert at_BS[0].tolist() == [3, 4, 5, 6, 7]  # the prompt's last token, then the response's own
    assert at_BS[2].tolist() == [3, 8, 9, 10, 0]  # a sibling starts at the same token; 0 beyond its end
    assert at_BS[1].tolist() == [11, 12, 13, 0, 0]
    assert at_BS[3].tolist() == [18, 19, 20, 0, 0]


def test_a_branch_sees_its_prompt_and_itself():
    first, second = pack(collate(EXAMPLES, 0)).buckets
    # Both trees in one call: trunks padded to 4 columns, branches to 7.
    assert (first.shape, first.trunk, first.tokens) == ((2, 11), 4, 17)
    assert first.seen_KRL is not None
    # The second token of the second response (the branches' sixth) sees the prompt, the one before it and itself.
    assert first.seen_KRL[0, 5].nonzero().flatten().tolist() == [0, 1, 2, 3, 8, 9]
    # The other tree's prompt has one token, the other three columns are padding.
    assert first.seen_KRL[1, 2].nonzero().flatten().tolist() == [0, 6]
    assert (second.shape, second.trunk, second.seen_KRL, second.home_M) == ((1, 4), 4, None, None)


def test_trees_of_like_size_share_a_call_and_others_do_not():
    lengths = [600, 590, 40, 38]
    packing = pack(collate([(tuple(range(n)), (1,)) for n in lengths], 0))
    # 600 and 590 (with their responses 601 and 591): padding adds 601²/2 - 591²/2 = 6,000 pairs, a call of its own
    # counts as 16,384. Beside them, 40 would cost 180,000 pairs.
    assert [bucket.shape for bucket in packing.buckets] == [(2, 601), (2, 41)]
    assert torch.equal(packing.buckets[0].home_M, torch.cat([torch.arange(601), 601 + torch.arange(591)]))
