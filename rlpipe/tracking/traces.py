"""Calls of a model as MLflow traces of the run that made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlpipe.tracking.store import Store

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Call:
    """A call of a model.

    Attributes:
        ended_ns: when it ended, in ns since the epoch.
        ok: whether it was answered.
    """

    name: str
    ended_ns: int
    seconds: float
    inputs: object
    outputs: object
    attributes: Mapping[str, object]
    ok: bool


def log_trace(store: Store, run_id: str, call: Call) -> None:
    """A trace of one span."""
    import mlflow

    client = store.client
    # The exporter of spans knows the process's own address alone, whatever the client was made with.
    mlflow.set_tracking_uri(client.tracking_uri)
    span = client.start_trace(
        call.name,
        span_type="LLM",
        inputs=call.inputs,
        attributes={key: str(value) for key, value in call.attributes.items()},
        experiment_id=store.experiment_id,
        start_time_ns=call.ended_ns - int(call.seconds * _NANOSECONDS),
        run_id=run_id,
    )
    status = "OK" if call.ok else "ERROR"
    client.end_trace(span.trace_id, outputs=call.outputs, status=status, end_time_ns=call.ended_ns)
