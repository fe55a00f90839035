"""Padding, masks and positions."""

from __future__ import annotations

from rlpipe.dataio.collate import collate


def test_responses_start_at_one_column() -> None:
    # Longest prompt 3, longest response 2; 0 pads.
    batch = collate([([5, 6, 7], [8]), ([9], [3, 4])], pad_id=0)
    assert batch.prompt_width == 3
    assert batch.ids_BL.tolist() == [[5, 6, 7, 8, 0], [0, 0, 9, 3, 4]]
    assert batch.attention_BL.tolist() == [[True, True, True, True, False], [False, False, True, True, True]]
    assert batch.response_ids_BT.tolist() == [[8, 0], [3, 4]]
    assert batch.response_mask_BT.tolist() == [[True, False], [True, True]]


def test_positions_count_from_each_rows_own_first_token() -> None:
    batch = collate([([5, 6, 7], [8]), ([9], [3, 4])], pad_id=0)
    assert batch.position_BL.tolist() == [[0, 1, 2, 3, 3], [0, 0, 0, 1, 2]]


def test_an_end_token_that_is_also_the_pad_token_counts() -> None:
    batch = collate([([5], [8, 0]), ([5], [8, 8, 0])], pad_id=0)
    assert batch.response_mask_BT.tolist() == [[True, True, False], [True, True, True]]
