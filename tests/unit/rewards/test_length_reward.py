"""The soft overlong penalty, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlpipe.errors import ConfigError
from rlpipe.rewards.length import length, overlong
from rlpipe.types import Task

TASK = Task("t", "q", "")


# max_length 10, cache_length 4: free up to 6, then (6 - n) / 4, and -1 above 10.
@pytest.mark.parametrize(
    ("count", "penalty"), [(0, 0.0), (6, 0.0), (7, -0.25), (8, -0.5), (9, -0.75), (10, -1.0), (11, -1.0), (99, -1.0)]
)
def test_the_penalty_grows_linearly_over_the_cache(count: int, penalty: float) -> None:
    assert overlong(count, 10, 4) == penalty


def test_without_a_cache_it_is_a_hard_limit() -> None:
    assert [overlong(count, 10, 0) for count in (10, 11)] == [0.0, -1.0]


def test_characters_need_no_tokenizer() -> None:
    assert length([TASK] * 2, ["123456", "12345678"], max_length=10, cache_length=4, unit="characters") == [0.0, -0.5]


def test_tokens_are_those_of_the_saved_tokenizer(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(tmp_path)
    # A token a character in this tokenizer: 8 tokens.
    assert length([TASK], ["1+2=3 45"], max_length=10, cache_length=4, tokenizer=str(tmp_path)) == [-0.5]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_length": 4, "cache_length": 5}, "length.cache_length=5: exceeds max_length=4"),
        ({"max_length": 4, "cache_length": 2}, "length.unit=tokens: there is no tokenizer"),
        ({"max_length": 4, "cache_length": 2, "tokenizer": "/nowhere"}, "length.tokenizer=/nowhere: holds no"),
    ],
)
def test_what_cannot_be_counted_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        length([TASK], ["text"], **options)
    assert said in str(error.value)
