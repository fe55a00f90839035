"""Calls of a model as MLflow traces of the run that made them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rlpipe.tracking.run import Run

_NANOSECONDS = 1_000_000_000


def log_trace(
    run: Run,
    name: str,
    seconds: float,
    *,
    inputs: object,
    outputs: object,
    attributes: Mapping[str, object],
    ok: bool,
) -> None:
    """A trace of one span that ends now and began `seconds` ago."""
    import mlflow

    now = time.time_ns()
    client = run.store.client
    # The exporter of spans knows the process's own address alone, whatever the client was made with.
    mlflow.set_tracking_uri(client.tracking_uri)
    span = client.start_trace(
        name,
        span_type="LLM",
        inputs=inputs,
        attributes={key: str(value) for key, value in attributes.items()},
        experiment_id=run.store.experiment_id,
        start_time_ns=now - int(seconds * _NANOSECONDS),
        run_id=run.id,
    )
    client.end_trace(span.trace_id, outputs=outputs, status="OK" if ok else "ERROR", end_time_ns=now)
