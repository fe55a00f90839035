"""The identity of a stage's result: whatever could change it, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from rlpipe.config.schema import Params
from rlpipe.lineage import digest


def result_key(address: str, params: Params, inputs: Iterable[Path]) -> str:
    """A hash of the stage, its parameters, its input files and rlpipe's own code.

    A checkpoint is resumed only under the key it was written with, so neither an edited parameter nor edited
    code nor changed data can leak into a resumed run. Where and how often to run do not count.
    """
    settings = params.model_dump_json(exclude={"tracking": True, "runtime": {"slots", "checkpoint_every"}})
    package = Path(__file__).parents[1]
    code = sorted(package.rglob("*.py"))
    parts = [address, settings, *(digest(path) for path in inputs), *(digest(path) for path in code)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
