"""The run of one stage: a child of the pipeline's run, or a run of its own under a bare `dvc repro`."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rlpipe import lineage
from rlpipe.config import Params
from rlpipe.tracking import keys
from rlpipe.tracking.run import FLOW_RUN, OUTPUT_HASH, PARENT, STAGE, Run, open_run
from rlpipe.tracking.sender import Row, Sender
from rlpipe.tracking.shared import SharedWriter
from rlpipe.tracking.store import open_store
from rlpipe.tracking.traces import Call
from rlpipe.tracking.writer import StoreWriter, Writer
from rlpipe.types import Metrics

PARENT_VARIABLE = "RLPIPE_MLFLOW_PARENT"
FLOW_RUN_VARIABLE = "RLPIPE_PREFECT_FLOW_RUN"
STORE_VARIABLE = "RLPIPE_MLFLOW_SHARED"


class Tracker(Protocol):
    """What a stage tells the memory. It hears nothing back, so no output can depend on it."""

    def metrics(self, step: int, values: Metrics) -> None:
        """One step's metrics. Returns at once. Raises: TrackingError for a name that `keys.KEYS` lacks."""
        ...

    def summary(self, values: Metrics) -> None:
        """Final metrics. A value `step` says where on the axis they stand; else the last step seen."""
        ...

    def dataset(self, name: str, path: Path) -> None:
        """A file or folder that the stage learns from or is measured on, with DVC's md5 of it."""
        ...

    def trace(
        self, name: str, seconds: float, *, inputs: object, outputs: object, attributes: Mapping[str, object], ok: bool
    ) -> None:
        """A call of a model that just ended, after `seconds`, as an MLflow trace of this run."""
        ...


@contextmanager
def stage_run(
    root: Path, address: str, params: Params, *, environ: Mapping[str, str] = os.environ
) -> Iterator[Tracker]:
    """The tracker of a stage while it runs; parameters are logged and, if it ends well, its outputs' hash.

    SIGTERM and SIGINT become KeyboardInterrupt meanwhile, so that a stopped stage closes its run as KILLED.

    Args:
        address: the stage's name in DVC, such as `policy@grpo`.
        environ: names the pipeline's run, the Prefect flow run and where the pipeline shares its store, where there
            are any.
    Raises: TrackingError if the store does not open; ConfigError if `dvc.yaml` has no such stage.
    """
    named = {PARENT: environ.get(PARENT_VARIABLE), FLOW_RUN: environ.get(FLOW_RUN_VARIABLE)}
    tags = {
        STAGE: address,
        "mlflow.source.name": address,
        **{tag: value for tag, value in named.items() if value},
    }
    logged = lineage.flattened(params.model_dump(), lineage.declared(root, address).params)
    with _ends_by_interrupt(), open_run(_writer(root, params, environ), root, params, address, tags, logged) as run:
        tracker = _RunTracker(run, root)
        try:
            yield tracker
        finally:
            tracker.flush()
        run.attempt("the outputs' hash", lambda: run.tag(OUTPUT_HASH, _output_hash(root, address)))


def _writer(root: Path, params: Params, environ: Mapping[str, str]) -> Writer:
    def own() -> Writer:
        return StoreWriter(open_store(root, params))

    at = environ.get(STORE_VARIABLE)
    return own() if at is None else SharedWriter(at, own)


def _output_hash(root: Path, address: str) -> str:
    return lineage.outputs_hash(lineage.file_outputs(root, address))


class _RunTracker:
    """A Tracker on an open run."""

    def __init__(self, run: Run, root: Path) -> None:
        self._run = run
        self._root = root
        self._sender = Sender(self._send)
        self._last: tuple[int, Metrics] = (0, {})

    def metrics(self, step: int, values: Metrics) -> None:
        for name in values:
            keys.check(name)
        self._last = (step, values)
        self._sender.put(step, values)

    def summary(self, values: Metrics) -> None:
        last_step, last_values = self._last
        step = int(values.get("step", last_step))
        sent = last_values if step == last_step else {}
        self.metrics(step, {k: v for k, v in values.items() if k != "step" and sent.get(k) != v})

    def dataset(self, name: str, path: Path) -> None:
        self._run.attempt(f"dataset {name}", lambda: self._log_dataset(name, path))

    def trace(
        self, name: str, seconds: float, *, inputs: object, outputs: object, attributes: Mapping[str, object], ok: bool
    ) -> None:
        call = Call(name, time.time_ns(), seconds, inputs, outputs, dict(attributes), ok)
        self._run.attempt(f"trace {name}", lambda: self._run.writer.trace(self._run.id, call))

    def flush(self) -> None:
        """Send what is queued; where the store refused rows, say on the run how many."""
        self._sender.close()
        if self._sender.lost:
            self._run.tag("rlpipe.metrics_lost", str(self._sender.lost))

    def _send(self, rows: Sequence[Row]) -> None:
        measured = [(name, float(value), row.timestamp, row.step) for row in rows for name, value in row.values.items()]
        self._run.writer.metrics(self._run.id, measured)

    def _log_dataset(self, name: str, path: Path) -> None:
        source = json.dumps({"uri": path.relative_to(self._root).as_posix()})
        self._run.writer.dataset(self._run.id, name, lineage.digest(path), source)


@contextmanager
def _ends_by_interrupt() -> Iterator[None]:
    """Within, SIGTERM and SIGINT raise KeyboardInterrupt; a handler of the caller's own is kept.

    By default SIGTERM ends the process where it stands, and a shell's background processes are started with SIGINT
    ignored: a stage of `rlpipe run &` could then only be killed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    silent = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.SIG_IGN}
    taken = {number: was for number, was in silent.items() if in_main and signal.getsignal(number) is was}
    for number in taken:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, was in taken.items():
            signal.signal(number, was)
