"""Step metrics on their way to the store, in a thread of their own: the training loop only queues them."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlpipe.types import Metrics

_log = logging.getLogger(__name__)

LINGER_SECONDS = 1.0  # rows that come within it share one transaction
MAX_BATCH = 1000  # metrics that MLflow takes at once
RETRY_SECONDS = (0.2, 2.0)


@dataclass(frozen=True)
class Row:
    """The metrics of one step, and when they were measured (ms since the epoch)."""

    step: int
    timestamp: int
    values: Metrics


class Sender:
    """Sends rows in the order of `put`. A row is never split: reward and KL of a step arrive together.

    What the store refuses after retries is counted in `lost` and warned of: a finished training is not thrown
    away because its tracker went down, and the stage's own table has the same numbers.
    """

    def __init__(self, send: Callable[[Sequence[Row]], None]) -> None:
        self._send = send
        self._rows: queue.SimpleQueue[Row] = queue.SimpleQueue()
        self._closing = threading.Event()
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def put(self, step: int, values: Metrics) -> None:
        """Queue one step's metrics; returns at once."""
        self._rows.put(Row(step, int(time.time() * 1000), dict(values)))

    def close(self) -> None:
        """Send what is queued and stop."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(LINGER_SECONDS):
            self._send_queued()
        self._send_queued()

    def _send_queued(self) -> None:
        rows = []
        while not self._rows.empty():
            rows.append(self._rows.get())
        for batch in batches(rows):
            self._deliver(batch)

    def _deliver(self, batch: Sequence[Row]) -> None:
        for pause in (*RETRY_SECONDS, None):
            try:
                self._send(batch)
            except Exception as error:  # whatever the store's database or server throws
                if pause is not None:
                    time.sleep(pause)
                    continue
                self.lost += len(batch)
                _log.warning(
                    "tracking: metrics of steps %d to %d are not in MLflow: %s",
                    batch[0].step,
                    batch[-1].step,
                    error,
                )
            return


def batches(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in order, as many at once as MLflow takes."""
    parts: list[list[Row]] = []
    size = 0
    for row in rows:
        if not parts or size + len(row.values) > MAX_BATCH:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += len(row.values)
    return parts
