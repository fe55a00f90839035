"""What runs write to a store, in plain values, so that it can be asked of another process too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rlpipe.tracking.process import HOST, PID, is_gone
from rlpipe.tracking.store import Store
from rlpipe.tracking.traces import Call, log_trace

_PARAMS_AT_ONCE = 100

# Name, value, time in ms since the epoch, step.
Measured = tuple[str, float, int, int]


class Writer(Protocol):
    """One store's runs by their ids. Every method raises what the store throws."""

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        """A new run's id. Runs of the host in `tags` whose process is gone are closed first."""
        ...

    def params(self, run_id: str, values: Mapping[str, str]) -> None:
        """Log parameters."""
        ...

    def tag(self, run_id: str, name: str, value: str) -> None:
        """Set a tag."""
        ...

    def metrics(self, run_id: str, measured: Sequence[Measured]) -> None:
        """Log at most 1000 values, in one transaction."""
        ...

    def dataset(self, run_id: str, name: str, digest: str, source: str) -> None:
        """Log a local dataset as an input; `source` is JSON."""
        ...

    def trace(self, run_id: str, call: Call) -> None:
        """Log a call of a model as a trace of one span."""
        ...

    def end(self, run_id: str, status: str) -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        ...


class StoreWriter:
    """Writes by the MLflow of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.client

    def create(self, name: str, tags: Mapping[str, str]) -> str:
        self._close_stale(tags[HOST])
        created = self._client.create_run(self._store.experiment_id, tags=dict(tags), run_name=name)
        return str(created.info.run_id)

    def params(self, run_id: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in values.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])

    def tag(self, run_id: str, name: str, value: str) -> None:
        self._client.set_tag(run_id, name, value)

    def metrics(self, run_id: str, measured: Sequence[Measured]) -> None:
        from mlflow.entities import Metric

        self._client.log_batch(run_id, metrics=[Metric(*values) for values in measured])

    def dataset(self, run_id: str, name: str, digest: str, source: str) -> None:
        from mlflow.entities import Dataset, DatasetInput

        dataset = Dataset(name=name, digest=digest, source_type="local", source=source)
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset=dataset, tags=[])])

    def trace(self, run_id: str, call: Call) -> None:
        log_trace(self._store, run_id, call)

    def end(self, run_id: str, status: str) -> None:
        self._client.set_terminated(run_id, status)

    def _close_stale(self, host: str) -> None:
        """A killed process cannot close its run: do it for those of this host."""
        filters = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{host}'"
        for run in self._client.search_runs([self._store.experiment_id], filters):
            if PID in run.data.tags and is_gone(run.data.tags):
                self._client.set_terminated(run.info.run_id, "KILLED")
