"""A tokenizer that learns to write: what it knew it encodes as before."""

from __future__ import annotations

from typing import Any

from rlpipe.dataio.chat import decode, prompt_ids, response_ids
from rlpipe.dataio.tokenizers import bpe, extended, load

OLD = ["6-2+1", "<think>6-2=4</think><answer>4</answer>"]
NEW = "Which step? 9-2=6 is wrong: <think>6-2=4</think> it is 7."


def test_old_text_keeps_its_ids_and_new_text_comes_back(tokenizer: Any, tmp_path: Any) -> None:
    longer = extended(tokenizer, [NEW])
    for text in OLD:
        assert prompt_ids(longer, text) == prompt_ids(tokenizer, text)
        assert response_ids(longer, text) == response_ids(tokenizer, text)
    assert decode(longer, response_ids(longer, NEW)) == NEW
    assert decode(tokenizer, response_ids(tokenizer, NEW)) != NEW
    longer.save_pretrained(tmp_path)
    assert response_ids(load(tmp_path), NEW) == response_ids(longer, NEW)


def test_new_characters_stand_at_the_end_sorted_and_the_old_tokenizer_is_left_alone(tokenizer: Any) -> None:
    size = len(tokenizer)
    longer = extended(tokenizer, ["ba", "ab?"])
    assert longer.convert_ids_to_tokens(range(size, len(longer))) == ["?", "a", "b"]
    assert len(tokenizer) == size


def test_a_byte_level_tokenizer_needs_no_token() -> None:
    tokenizer = bpe(["some words"], 300)
    assert len(extended(tokenizer, [NEW, "é漢"])) == len(tokenizer)
