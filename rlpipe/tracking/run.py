"""One MLflow run, from its first tag to its last status."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rlpipe import lineage
from rlpipe.config import Params
from rlpipe.tracking.process import own_tags
from rlpipe.tracking.source import commit_tags
from rlpipe.tracking.store import Store, usable
from rlpipe.tracking.writer import Writer

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

PARENT = "mlflow.parentRunId"
FLOW_RUN = "prefect.flow_run_id"
STAGE = "rlpipe.stage"
OUTPUT_HASH = "rlpipe.output_hash"
_ERROR_CHARACTERS = 2000


class Run:
    """An open run. Once it is open, a store that fails is warned of and never fails the work."""

    def __init__(self, writer: Writer, run_id: str) -> None:
        self.writer = writer
        self.id = run_id
        self.failed = False

    def attempt(self, what: str, call: Callable[[], _Result]) -> _Result | None:
        """The call's result; None and a warning if the store refuses."""
        try:
            return call()
        except Exception as error:  # whatever the store's database or server throws
            _log.warning("tracking: %s not in MLflow: %s", what, error)
            return None

    def tag(self, name: str, value: str) -> None:
        """Set a tag; `@`, which MLflow does not take in names, becomes a dot."""
        self.attempt(f"tag {name}", lambda: self.writer.tag(self.id, name.replace("@", "."), value))

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self.attempt(f"status {status}", lambda: self.writer.end(self.id, status))


@contextmanager
def open_run(
    writer: Writer, root: Path, params: Params, name: str, tags: Mapping[str, str], logged: Mapping[str, str]
) -> Iterator[Run]:
    """A run that is FINISHED, FAILED (its error as a tag) or KILLED when the block ends.

    Runs of this host whose process is gone are closed first.

    Raises: TrackingError if the store refuses the run.
    """
    tags = {**own_tags(), **commit_tags(root), **tags}
    with usable(params):
        run = Run(writer, writer.create(name, tags))
    run.attempt("params", lambda: writer.params(run.id, logged))
    try:
        yield run
    except BaseException as error:
        if isinstance(error, Exception | SystemExit):
            run.tag("rlpipe.error", _error_line(error))
            run.end("FAILED")
        else:  # KeyboardInterrupt, and Prefect's signal of a cancelled flow
            run.end("KILLED")
        raise
    run.end("FAILED" if run.failed else "FINISHED")


def latest(store: Store, filters: str) -> Any | None:
    """The newest run of the experiment that passes the filter."""
    runs = store.client.search_runs([store.experiment_id], filters, max_results=1, order_by=["start_time DESC"])
    return runs[0] if runs else None


def maker(store: Store, root: Path, address: str) -> Any | None:
    """The finished run that made the outputs that `dvc.lock` records for a stage, wherever it ran.

    It is found by the outputs' hash: a stage that was restored, or is up to date, leads to the run that did the work.
    """
    outputs = lineage.lock_outputs(root, address)
    if not outputs:
        return None
    return latest(
        store,
        f"attributes.status = 'FINISHED' and tags.`{STAGE}` = '{address}' "
        f"and tags.`{OUTPUT_HASH}` = '{lineage.outputs_hash(outputs)}'",
    )


def _error_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:_ERROR_CHARACTERS]
