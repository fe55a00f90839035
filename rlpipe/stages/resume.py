"""Where a training stage resumes from."""

from __future__ import annotations

from rlpipe.checkpoint.key import result_key
from rlpipe.checkpoint.store import Store
from rlpipe.stages.base import Stage


def resumable(stage: Stage, *inputs: str) -> Store:
    """The stage's checkpoint store; `inputs` are the paths of dvc.yaml that its result depends on."""
    key = result_key(stage.address, stage.params, [stage.path(relative) for relative in inputs])
    return Store(stage.scratch, key, stage.params.runtime.checkpoint_every)
