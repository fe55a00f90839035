"""A step of DPO on 32 pairs, 15.7M parameters: rlpipe against TRL 1.16.

    python -m benchmarks.dpo

The reference's log-probs of the 32 pairs are part of both sides' seconds (rlpipe computes them once for all epochs, so
a second epoch would cost it less). The same gradients before a ratio is printed.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks import ours, shapes, trl_now
from benchmarks.offline import compared
from benchmarks.pairs import record

NAME, PAIRS = "DPO step, 32 pairs, 15.7M", 32


def main() -> None:
    given = shapes.arguments("A step of DPO against TRL 1.16.", pairs=5)
    source, pairs = shapes.pairs(PAIRS)
    print(f"pairs from {source}")
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.stored(shapes.model_16m, Path(folder))
        record(*compared(NAME, partial(ours.dpo, model, pairs), partial(trl_now.dpo, model, pairs), given.pairs))


if __name__ == "__main__":
    main()
