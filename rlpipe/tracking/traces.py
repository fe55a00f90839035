"""Calls of a model as MLflow traces of the run that made them."""

from __future__ import annotations

from collections.abc import Mapping

from rlpipe.tracking.store import Store

_NANOSECONDS = 1_000_000_000


def log_trace(
    store: Store,
    run_id: str,
    name: str,
    ended_ns: int,
    seconds: float,
    inputs: object,
    outputs: object,
    attributes: Mapping[str, object],
    ok: bool,
) -> None:
    """A trace of one span that took `seconds` and ended at `ended_ns`, in ns since the epoch."""
    import mlflow

    client = store.client
    # The exporter of spans knows the process's own address alone, whatever the client was made with.
    mlflow.set_tracking_uri(client.tracking_uri)
    span = client.start_trace(
        name,
        span_type="LLM",
        inputs=inputs,
        attributes={key: str(value) for key, value in attributes.items()},
        experiment_id=store.experiment_id,
        start_time_ns=ended_ns - int(seconds * _NANOSECONDS),
        run_id=run_id,
    )
    client.end_trace(span.trace_id, outputs=outputs, status="OK" if ok else "ERROR", end_time_ns=ended_ns)
