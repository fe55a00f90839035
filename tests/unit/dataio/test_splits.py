"""Whole prompts are held out."""

from __future__ import annotations

from rlpipe.dataio.splits import hold_out, split_pairs
from rlpipe.types import Preference

PROMPTS = [f"prompt {n}" for n in range(20)]


def pairs(prompts: list[str]) -> list[Preference]:
    return [Preference(f"r:{n}", prompt, "good", "bad") for n, prompt in enumerate(prompts)]


def test_order_and_repetition_do_not_matter() -> None:
    held = hold_out(PROMPTS, 0.25, seed=3)
    assert held == hold_out([*reversed(PROMPTS), *PROMPTS], 0.25, seed=3)
    assert len(held) == 5
    assert held != hold_out(PROMPTS, 0.25, seed=4)


def test_a_new_prompt_moves_at_most_one_other() -> None:
    before, after = hold_out(PROMPTS, 0.25, 3), hold_out([*PROMPTS, "new"], 0.25, 3)
    assert len(before - after) <= 1


def test_at_least_one_is_held_out() -> None:
    assert len(hold_out(["a", "b"], 0.01, 0)) == 1


def test_pairs_of_evaluation_prompts_are_always_held_out() -> None:
    # 20 prompts, each with 2 pairs; 0.15 of 20 is 3: the two evaluation prompts and one more.
    train, held = split_pairs(pairs(PROMPTS * 2), ["Prompt 4", "prompt 9", "elsewhere"], 0.15, seed=1)
    assert (len(train), len(held)) == (34, 6)
    assert {"prompt 4", "prompt 9"} < {pair.prompt for pair in held}
    assert not {pair.prompt for pair in train} & {pair.prompt for pair in held}


def test_more_evaluation_prompts_than_the_fraction_are_held_out_all() -> None:
    train, held = split_pairs(pairs(PROMPTS), PROMPTS[:8], 0.15, seed=1)
    assert ({pair.prompt for pair in held}, len(train)) == (set(PROMPTS[:8]), 12)


def test_no_pairs_give_no_pairs() -> None:
    assert split_pairs([], ["a"], 0.15, seed=1) == ([], [])
