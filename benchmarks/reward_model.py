"""A step of a Bradley-Terry reward model on 32 pairs, 15.7M parameters: rlpipe against TRL 1.16.

    python -m benchmarks.reward_model

The same new head and the same gradients on both sides before a ratio is printed.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours, shapes, trl_now
from benchmarks.offline import compared
from benchmarks.pairs import record

NAME, PAIRS = "reward-model step, 32 pairs, 15.7M", 32


def main() -> None:
    given = shapes.arguments("A step of a reward model against TRL 1.16.", pairs=5)
    source, pairs = shapes.pairs(PAIRS)
    print(f"pairs from {source}")
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.stored(shapes.model_16m, Path(folder))
        mine, peer = partial(ours.reward_model, model, pairs), partial(trl_now.reward_model, model, pairs)
        record(*compared(NAME, mine, peer, given.pairs))


if __name__ == "__main__":
    main()
