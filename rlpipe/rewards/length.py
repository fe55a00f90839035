"""Too long an answer, and how the penalty comes in softly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rlpipe.errors import ConfigError
from rlpipe.rewards.base import Missing
from rlpipe.types import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def length(
    tasks: Sequence[Task],  # noqa: ARG001 - a Component
    completions: Sequence[str],
    *,
    max_length: Annotated[int, Field(ge=1)],
    cache_length: Annotated[int, Field(ge=0)],
    unit: Literal["tokens", "characters"] = "tokens",
    tokenizer: str | None = None,
) -> list[float | Missing]:
    """The soft overlong penalty, in [-1, 0]; give it a positive weight.

        0                                              |y| <= max_length - cache_length
        ((max_length - cache_length) - |y|) / cache_length    in between
        -1                                             |y| >  max_length

    |y| is the completion's text, counted in characters, or in tokens of `tokenizer` (a folder with its
    tokenizer.json; stages give the policy's own). A component sees text alone, so tokens are those of the text
    encoded again: without the end token, and, where the policy drew another cut of the same text, not its own count.

    Raises: ConfigError if tokens are asked for and no tokenizer is given, or the cache exceeds the length.
    Source: arXiv:2503.14476 eq. 13.
    """
    if cache_length > max_length:
        raise ConfigError(
            f"length.cache_length={cache_length}: exceeds max_length={max_length}, so that even an empty answer "
            "would be punished. Lower it."
        )
    counts = [len(text) for text in completions] if unit == "characters" else _tokens(completions, tokenizer)
    return [overlong(count, max_length, cache_length) for count in counts]


def overlong(count: int, max_length: int, cache_length: int) -> float:
    """The penalty of a completion of `count` units."""
    free = max_length - cache_length
    if count <= free:
        return 0.0
    return (free - count) / cache_length if count <= max_length else -1.0


def _tokens(texts: Sequence[str], folder: str | None) -> list[int]:
    if not texts:
        return []
    if folder is None:
        raise ConfigError(
            "length.unit=tokens: there is no tokenizer to count with. Set tokenizer to a model's folder, or "
            "unit: characters."
        )
    encoded = _tokenizer(folder).encode_batch(list(texts), add_special_tokens=False)
    return [len(encoding.ids) for encoding in encoded]


@cache
def _tokenizer(folder: str) -> Tokenizer:
    from tokenizers import Tokenizer

    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"length.tokenizer={folder}: holds no tokenizer.json. Name the folder of a saved model.")
    tokenizer = Tokenizer.from_file(str(file))
    # A saved tokenizer may cut long texts off, or fill short ones up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
