"""A step of PPO with a critic of its own, group shapes, one epoch, 15.7M parameters: rlpipe against TRL 1.12.

    make .trl112
    python -m benchmarks.ppo

64 completions to 8 prompts of 256 tokens, policy and critic of 15.7M parameters each, KL to a reference in the reward.
TRL draws the very tokens that rlpipe drew, and the policy's gradients must be the same before a ratio is printed, but
for the factor by which a sample's deviation (TRL whitens with it) exceeds the deviation, 1 / 2n over n tokens. The
critics differ by design: TRL's also learns the value behind the last token, where it pays the score.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours, trl_112
from benchmarks.gradients import require_same
from benchmarks.pairs import from_here, peak_memory, record, timed
from benchmarks.shapes import Groups, arguments, group_shapes, gsm8k_prompts

NAME = "PPO step, group shapes, 15.7M"
# Completions in a forward pass of TRL's: what is fastest for it here.
SIZE = 64


def ours_once(work: Groups) -> None:
    """For a process of its own."""
    from_here()
    ours.online("ppo", work, steps=1, lr=ours.STILL)


def main() -> None:
    given = arguments("A step of PPO against TRL 1.12.", pairs=5)
    with tempfile.TemporaryDirectory() as folder:
        work = group_shapes(Path(folder), gsm8k_prompts())
        mine = ours.online("ppo", work, steps=2, lr=ours.STILL)
        peer = trl_112.Peer(work, SIZE)
        try:
            tokens = sum(len(completion) for _, completion in mine.drawn[1])
            require_same(mine.gradients[1:], peer.step(mine.drawn[1]).gradients, 1 / tokens)
            record(
                timed(
                    NAME,
                    lambda: ours.online("ppo", work, steps=2, lr=ours.STILL).seconds,
                    lambda: peer.step(mine.drawn[1]).seconds,
                    given.pairs,
                    warmed_up=True,
                )
            )
        finally:
            peer.close()
        sides = partial(ours_once, work), partial(trl_112.once, work, mine.drawn[0], SIZE)
        record(peak_memory(f"{NAME}, memory", *sides))


if __name__ == "__main__":
    main()
