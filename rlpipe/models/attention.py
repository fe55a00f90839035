"""Which attention a decoder's layers use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attention_as(config: Any, name: str) -> Iterator[None]:
    """Within, the layers that hold `config` use the attention of this name."""
    own = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = own
