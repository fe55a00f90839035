"""A step of GRPO on a LoRA adapter of a 0.5B model in bf16: rlpipe against TRL 1.16.

    python -m benchmarks.lora --long

2 prompts of 256 tokens, 8 completions each, geometric with mean 32 and at most 128; 494M random weights in the shape of
Qwen2.5-0.5B, rank 16, autocast on both sides. Timed are the very steps whose gradients are compared: without AMX TRL
needs some twenty minutes for them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import ours, trl_now
from benchmarks.gradients import require_same
from benchmarks.grpo import LIMIT, memory
from benchmarks.pairs import Result, record, result_of
from benchmarks.shapes import GROUP, LONGEST, Groups, arguments, gsm8k_prompts, model_500m, stored

NAME = "LoRA GRPO step, 0.5B, 2 x 8, bf16"
VOCABULARY = 151_936
EOS = frozenset(range(VOCABULARY - VOCABULARY // 32, VOCABULARY))
# Completions in a forward pass of TRL's.
SIZE = 4


def compared(work: Groups, pairs: int) -> Result:
    """Seconds of the second of two steps. Raises: AssertionError if the two sides compute different things."""
    measured = []
    for _ in range(pairs):
        mine = ours.online("grpo", work, steps=2, lr=ours.MOVING)
        theirs = trl_now.grpo(work, mine.drawn, lr=ours.MOVING, size=SIZE)
        require_same(mine.gradients, theirs.gradients, LIMIT[work.dtype])
        measured.append((mine.seconds, theirs.seconds))
    return result_of(NAME, "s", measured)


def shapes(folder: Path) -> Groups:
    """2 prompts of the group shapes, the 0.5B model in `folder`."""
    return Groups(
        stored(model_500m, folder), tuple(gsm8k_prompts()[:2]), GROUP, LONGEST, EOS, 1024, "bfloat16", rank=16
    )


def main() -> None:
    if "--long" not in sys.argv:
        print(f"{NAME}: not run, because it is long. Say --long.")
        return
    sys.argv.remove("--long")
    given = arguments("A step of GRPO with LoRA against TRL 1.16.", pairs=1)
    with tempfile.TemporaryDirectory() as folder:
        work = shapes(Path(folder))
        record(compared(work, given.pairs))
        record(memory(NAME, work, SIZE))


if __name__ == "__main__":
    main()
