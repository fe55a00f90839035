"""A process that has the stages' libraries, for as long as a pipeline runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from rlpipe.handover import VARIABLE
from rlpipe.helper import helper


@contextmanager
def warm(root: Path) -> Iterator[dict[str, str]]:
    """Within, stages of the workspace `root` whose environment has what this yields are forked from such a process.

    It runs the workspace's own code, and no stage once a file of that has changed. See `rlpipe.warm`. Nothing is
    offered where CUDA may be used, which does not survive a fork; there imports are the least of a stage's time.
    """
    if sys.platform != "linux" or not version("torch").endswith("+cpu"):
        yield {}
        return
    with helper("rlpipe.warm", root) as at:
        yield {} if at is None else {VARIABLE: at}
