"""Which prompts are held out. Whole prompts are, never rows, so that no prompt stands on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

from rlpipe.dataio.records import prompt_key
from rlpipe.types import Preference


def hold_out(prompts: Iterable[str], fraction: float, seed: int) -> frozenset[str]:
    """Keys (see `prompt_key`) of the prompts to hold out: `fraction` of the distinct ones, at least one.

    Chosen by a seeded hash of each prompt: neither the order of the rows nor repetitions matter, and a row
    added later moves at most one other prompt across the border.
    """
    keys = sorted({prompt_key(prompt) for prompt in prompts}, key=lambda key: _rank(key, seed))
    return frozenset(keys[: max(1, round(fraction * len(keys)))])


def split_pairs(
    pairs: Sequence[Preference], evaluation_prompts: Collection[str], fraction: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """The pairs to train on and the pairs held out, disjoint by prompt.

    Pairs whose prompt is an evaluation task are always held out, so that nothing that learns from the pairs
    has seen what it is evaluated on. Where those are less than `fraction` of the prompts, others join them.

    Args:
        evaluation_prompts: prompts of `heldout.jsonl`.
        fraction: of the distinct prompts, in (0, 1).
    Returns: (train, heldout), each in the order of `pairs`.
    """
    keys = {prompt_key(pair.prompt) for pair in pairs}
    held = keys & {prompt_key(prompt) for prompt in evaluation_prompts}
    short = round(fraction * len(keys)) - len(held)
    held |= set(sorted(keys - held, key=lambda key: _rank(key, seed))[: max(0, short)])
    train = [pair for pair in pairs if prompt_key(pair.prompt) not in held]
    return train, [pair for pair in pairs if prompt_key(pair.prompt) in held]


def _rank(key: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{key}".encode()).digest()
