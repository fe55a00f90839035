"""The run of one pipeline: the parent of its stages' runs, and of the runs whose outputs were restored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlpipe import lineage
from rlpipe.config import Params
from rlpipe.tracking.run import FLOW_RUN, STAGE, Run, maker, open_run
from rlpipe.tracking.shared import shared
from rlpipe.tracking.stage import FLOW_RUN_VARIABLE, PARENT_VARIABLE, STORE_VARIABLE
from rlpipe.tracking.store import Store, open_store
from rlpipe.tracking.writer import StoreWriter

ELSEWHERE = "not in this store"
_UNFINISHED = ("Failed", "Cancelled")


def seconds_key(address: str) -> str:
    """The parent's metric that holds a stage's wall time, such as `time/policy.grpo_s`."""
    return f"time/{re.sub('[^a-z0-9_.]', '.', address.lower())}_s"


class PipelineRun:
    """What the flow tells the parent run."""

    def __init__(self, run: Run, store: Store, root: Path, environ: Mapping[str, str]) -> None:
        self._run = run
        self._store = store
        self._root = root
        self.environ = dict(environ)

    @property
    def run_id(self) -> str:
        """The parent run's id in MLflow."""
        return self._run.id

    def stage_finished(self, address: str, state: str, seconds: float) -> None:
        """Note how a stage ended, its wall time, and which run made the outputs that stand now.

        That run is found by the outputs' hash, so a stage that was restored or up to date is linked to the
        run that did the work. A stage that failed or was cancelled fails the parent run too. Safe from any
        thread; never raises.
        """
        self._run.failed |= state in _UNFINISHED
        self._run.tag(f"rlpipe.state.{address}", state)
        name = seconds_key(address)
        self._run.attempt(name, lambda: self._store.client.log_metric(self._run.id, name, seconds))
        self._run.attempt(f"the run that made {address}", lambda: self._link(address))

    def _link(self, address: str) -> None:
        if lineage.lock_outputs(self._root, address):
            made_by = maker(self._store, self._root, address)
            self._run.tag(f"{STAGE}.{address}", made_by.info.run_id if made_by else ELSEWHERE)


@contextmanager
def pipeline_run(root: Path, params: Params, name: str, tags: Mapping[str, str]) -> Iterator[PipelineRun]:
    """The parent run of one pipeline run, with all parameters; `environ` is for its stages, which share its store.

    Args:
        tags: `prefect.flow_run_id` among them is handed on to the stages.
    Raises: TrackingError if the store does not open.
    """
    store = open_store(root, params)
    writer = StoreWriter(store)
    tags = {"rlpipe.pipeline": name, **tags}
    logged = lineage.flattened(params.model_dump())
    with open_run(writer, root, params, name, tags, logged) as run, shared(writer) as at:
        environ = {PARENT_VARIABLE: run.id}
        if at is not None:
            environ[STORE_VARIABLE] = at
        if FLOW_RUN in tags:
            environ[FLOW_RUN_VARIABLE] = tags[FLOW_RUN]
        yield PipelineRun(run, store, root, environ)
