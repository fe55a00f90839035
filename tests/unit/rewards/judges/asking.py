"""What the tests of the judges ask, and settings to ask with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlpipe.rewards.judges.base import Pair
from rlpipe.rewards.judges.settings import Endpoint, Judging

WORDS = ("one", "two", "three", "four", "five", "six", "seven")


def pairs(n: int) -> list[Pair]:
    """`n` different pairs of short answers."""
    return [
        Pair(f"What is {at} + {at + 1}?", f"It is {2 * at + 1}, {WORDS[at % 7]}.", " ".join(WORDS[at % 5 :] * 2))
        for at in range(n)
    ]


def endpoint(url: str, **changes: Any) -> Endpoint:
    """Settings that wait little."""
    settings: dict[str, Any] = {
        "base_url": url,
        "model": "tiny-judge",
        "api_key_env": None,
        "temperature": 0.0,
        "max_tokens": 8,
        "token_field": "max_tokens",
        "structure": "json_schema",
        "system_role": True,
        "extra": {},
        "concurrency": 4,
        "timeout_s": 30.0,
        "retries": 2,
        "backoff_s": 0.01,
        "backoff_limit_s": 0.1,
        "breaker": 3,
        "prompt_price": 1.0,
        "completion_price": 4.0,
    }
    return Endpoint(**{**settings, **changes})


def judging(folder: Path, **changes: Any) -> Judging:
    settings: dict[str, Any] = {
        "seed": 17,
        "fence_key": "tests",
        "journal": folder / "journal.jsonl",
        "known": (),
        "replay": False,
        "reasoned": False,
        "top": 10,
        "tie_margin": 0.0,
    }
    return Judging(**{**settings, **changes})
