"""A step of GRPO: rlpipe against TRL 1.16.

    python -m benchmarks.grpo [default] [group] [bf16]

`default`: 64 completions of about 20 tokens by the 0.9M model, the shape of the default task. `group`: 8 prompts of 256
tokens, 8 completions each, geometric with mean 32 and at most 128, by the 15.7M model; `bf16`: the same in autocast on
both sides. Rollout, reward, reference, one update, with KL to the reference in the loss. TRL draws the very tokens that
rlpipe drew. Both sides' gradients over two steps that move the weights must be the same (the KL has none at the first)
before a ratio is printed. The step that is timed is not a run's first, which also passes a gate.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours, trl_now
from benchmarks.gradients import require_same
from benchmarks.ours import Drawn
from benchmarks.pairs import Result, from_here, peak_memory, record, timed
from benchmarks.shapes import Groups, arguments, default_shapes, group_shapes, gsm8k_prompts

# Of the gradients' length. AdamW's first step makes a whole step of a gradient of any size, so that rounding in the
# first shows in the second.
LIMIT = {"float32": 1e-2, "bfloat16": 0.05}
NAMES = {
    "default": "GRPO step, default task, 0.9M",
    "group": "GRPO step, group shapes, 15.7M",
    "bf16": "GRPO step, group shapes, 15.7M, bf16",
}
# Completions in a forward pass of TRL's: what is fastest for it here.
SIZE = {"default": 64, "group": 64, "bf16": 64}


def compared(name: str, work: Groups, size: int, pairs: int) -> Result:
    """Seconds of a step. Raises: AssertionError if the two sides compute different things."""
    moving = ours.online("grpo", work, steps=2, lr=ours.MOVING)
    theirs = trl_now.grpo(work, moving.drawn, lr=ours.MOVING, size=size)
    require_same(moving.gradients, theirs.gradients, LIMIT[work.dtype])
    still = ours.online("grpo", work, steps=2, lr=ours.STILL)
    return timed(
        name,
        lambda: ours.online("grpo", work, steps=2, lr=ours.STILL).seconds,
        lambda: trl_now.grpo(work, still.drawn[1:], lr=ours.STILL, size=size).seconds,
        pairs,
        warmed_up=True,
    )


def memory(name: str, work: Groups, size: int) -> Result:
    """Peak memory of a step, model, reference and optimizer included."""
    drawn = ours.online("grpo", work, steps=1, lr=ours.STILL).drawn
    return peak_memory(f"{name}, memory", partial(ours_once, work), partial(peer_once, work, drawn, size))


def ours_once(work: Groups) -> None:
    """For a process of its own."""
    from_here()
    ours.online("grpo", work, steps=1, lr=ours.STILL)


def peer_once(work: Groups, drawn: list[Drawn], size: int) -> None:
    """For a process of its own."""
    from_here()
    trl_now.grpo(work, drawn, lr=ours.STILL, size=size)


def shapes_of(which: str, folder: Path) -> Groups:
    """The work that a name stands for."""
    if which == "default":
        return default_shapes(folder)
    return group_shapes(folder, gsm8k_prompts(), "bfloat16" if which == "bf16" else "float32")


def main() -> None:
    given = arguments("A step of GRPO against TRL 1.16.", pairs=5, which=list(NAMES))
    for which in given.which:
        name, size = NAMES[which], SIZE[which]
        with tempfile.TemporaryDirectory() as folder:
            work = shapes_of(which, Path(folder))
            record(compared(name, work, size, given.pairs))
            if which != "default":
                record(memory(name, work, size))


if __name__ == "__main__":
    main()
