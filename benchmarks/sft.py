"""A step of supervised fine-tuning on 32 rows, 15.7M parameters: rlpipe against TRL 1.16, padded and packed.

    python -m benchmarks.sft [padded] [packed] [pack]

Packed is TRL's `bfd`: whole rows in packs of 1,024 tokens, apart from each other by their positions. Its packs of a
batch are one row with one large mask; one pack at a time needs less of everything, so that is measured too. The same
rows and the same gradients on both sides before a ratio is printed: the ratio of seconds is that of real tokens a
second.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours, shapes, trl_now
from benchmarks.offline import compared
from benchmarks.pairs import record

ROWS = 32
# Part -> name, whether TRL packs, and how many rows, or packs, it has in a forward pass.
PEERS = {
    "padded": ("SFT step, 32 rows, 15.7M, over padded", False, ROWS),
    "packed": ("SFT step, 32 rows, 15.7M, over packed", True, ROWS),
    "pack": ("SFT step, 32 rows, 15.7M, over one pack at a time", True, 1),
}


def main() -> None:
    given = shapes.arguments("A step of supervised fine-tuning against TRL 1.16.", pairs=5, which=list(PEERS))
    source, rows = shapes.demonstrations(ROWS)
    tokens = sum(len(prompt) + len(response) for prompt, response in rows)
    print(f"{len(rows)} rows from {source}, {tokens} tokens")
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.stored(shapes.model_16m, Path(folder))
        for name, packed, size in (PEERS[which] for which in given.which):
            peer = partial(trl_now.sft, model, rows, packed=packed, size=size)
            results = compared(name, partial(ours.sft, model, rows), peer, given.pairs)
            record(*results)
            print(f"tokens a second: ours {tokens / results[0].ours:.0f}, TRL {tokens / results[0].peer:.0f}")


if __name__ == "__main__":
    main()
