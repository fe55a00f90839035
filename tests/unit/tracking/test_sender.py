"""Rows leave in order, whole, in as few batches as MLflow allows; a store that fails costs no training."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import pytest

from rlpipe.tracking import sender
from rlpipe.tracking.sender import MAX_BATCH, Row, Sender, batches


def test_everything_queued_is_sent_in_order_when_closed() -> None:
    sent: list[Row] = []
    line = Sender(sent.extend)
    for step in range(500):
        line.put(step, {"a": float(step)})
    line.close()
    assert [row.step for row in sent] == list(range(500))
    assert [row.values["a"] for row in sent] == [float(step) for step in range(500)]


def test_put_does_not_wait_for_a_slow_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LINGER_SECONDS", 0.0)
    release = threading.Event()

    def slow(rows: Sequence[Row]) -> None:
        release.wait(10)

    line = Sender(slow)
    began = time.perf_counter()
    for step in range(1000):
        line.put(step, {"a": 1.0})
    took = time.perf_counter() - began
    release.set()
    line.close()
    assert took < 1.0, "the store answers only after the last put"


def test_rows_are_copied_when_queued() -> None:
    sent: list[Row] = []
    line = Sender(sent.extend)
    values = {"a": 1.0}
    line.put(0, values)
    values["a"] = 2.0
    line.close()
    assert sent[0].values == {"a": 1.0}


def test_a_row_is_never_split() -> None:
    rows = [Row(step, 0, {f"k{i}": 0.0 for i in range(300)}) for step in range(7)]
    parts = batches(rows)
    assert [len(part) for part in parts] == [3, 3, 1]  # 3 * 300 fit into 1000, 4 do not
    assert [row for part in parts for row in part] == rows
    assert max(sum(len(row.values) for row in part) for part in parts) <= MAX_BATCH


def test_a_failed_batch_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "RETRY_SECONDS", (0.0, 0.0))
    tries: list[int] = []

    def send(rows: Sequence[Row]) -> None:
        tries.append(len(rows))
        if len(tries) < 3:
            raise OSError("database is locked")

    line = Sender(send)
    line.put(0, {"a": 1.0})
    line.close()
    assert (len(tries), line.lost) == (3, 0)


def test_what_the_store_refuses_is_counted_and_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sender, "RETRY_SECONDS", (0.0,))

    def refuse(rows: Sequence[Row]) -> None:
        raise OSError("no such host")

    line = Sender(refuse)
    line.put(3, {"a": 1.0})
    line.put(4, {"a": 1.0})
    with caplog.at_level(logging.WARNING):
        line.close()
    assert line.lost == 2
    assert "steps 3 to 4 are not in MLflow: no such host" in caplog.text
