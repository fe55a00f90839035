"""A padded batch is laid out without padding, each different prompt once with its responses behind it."""

import torch

from rlpipe.dataio.collate import collate
from rlpipe.models.packing import Bucket, Unfolded, pack

LONG, SHORT, OTHER = (5, 6, 7, 8), (9,), (20, 21)
EXAMPLES = [(LONG, (8, 9, 10, 1)), (SHORT, (11, 1)), (LONG, (12, 13, 1)), (OTHER, (14, 1)), (SHORT, (15, 16, 1))]


def test_every_prompt_stands_once_and_its_responses_go_on_where_it_ends():
    packing = pack(collate(EXAMPLES, 0))
    # The trees with branches first, the largest first; then those whose one response is part of the trunk.
    assert packing.ids_N.tolist() == [5, 6, 7, 8, 8, 9, 10, 1, 12, 13, 1, 9, 11, 1, 15, 16, 1, 20, 21, 14, 1]
    assert packing.position_N.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 0, 1, 2, 1, 2, 3, 0, 1, 2, 3]


def test_it_is_known_where_the_token_before_each_response_token_stands():
    packing = pack(collate(EXAMPLES, 0))
    stands = [packing.read_M[at].tolist() for at in packing.at_BS]
    assert stands[0] == [3, 4, 5, 6, 7]  # the prompt's last token, then the response's own
    assert stands[2][:4] == [3, 8, 9, 10]  # a sibling starts at the same token
    assert stands[1][:3] == [11, 12, 13]
    assert stands[3][:3] == [18, 19, 20]
    assert packing.at_BS[1].tolist()[3:] == [0, 0]  # beyond its end


def test_of_a_prompt_only_the_last_token_is_read():
    read = pack(collate(EXAMPLES, 0)).read_M
    assert read.tolist() == [number for number in range(21) if number not in (0, 1, 2, 17)]


def test_a_branch_sees_its_prompt_and_itself():
    first, second = pack(collate(EXAMPLES, 0)).trees
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
    assert [bucket.shape for bucket in packing.trees] == [(2, 601), (2, 41)]
    assert torch.equal(packing.trees[0].home_M, torch.cat([torch.arange(601), 601 + torch.arange(591)]))


def test_a_tree_of_long_branches_is_unfolded_the_longest_first():
    # One mask over all: 1,300 x 1,310 pairs. Each behind its prompt: 2 x 501 x 511 and 300 x 310, and two calls.
    responses = [(1,) * 300, (2,) * 500, (3,) * 500, (4,)]
    packing = pack(collate([((7,) * 10, response) for response in responses] + EXAMPLES, 0))
    *folded, tree = packing.trees
    assert [type(trees) for trees in folded] == [Bucket, Bucket]
    assert isinstance(tree, Unfolded)
    assert [columns.shape for columns in tree.branches] == [(2, 500), (1, 300), (1, 1)]
    assert (tree.trunk, tree.tokens) == (10, 1311)
    assert packing.ids_N[-1311:].tolist() == [7] * 10 + [2] * 500 + [3] * 500 + [1] * 300 + [4]
    assert packing.position_N[packing.read_M[packing.at_BS[0, :301]]].tolist() == list(range(9, 310))


def test_branches_of_like_length_share_a_call():
    (tree,) = pack(collate([((7,) * 10, (1,) * length) for length in (400, 395, 390, 385)], 0)).trees
    assert [columns.shape for columns in tree.branches] == [(4, 400)]
    assert tree.branches[0].home_M[400:402].tolist() == [400, 401]  # the second branch starts where its row starts
    assert tree.branches[0].home_M[795:797].tolist() == [800, 801]
