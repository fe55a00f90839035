"""Walk the graph: start each stage when its upstreams are done and a slot is free."""

from __future__ import annotations

import queue
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, cast

from prefect import allow_failure
from prefect.futures import PrefectFuture

from flows.graph import Graph
from flows.slots import Slots
from tasks.process import Children
from tasks.stage import RAN, RESTORED, UP_TO_DATE, Outcome, run_stage, skip, up_to_date

_DONE = (RAN, RESTORED, UP_TO_DATE)


def walk(
    graph: Graph,
    stale: Container[str],
    *,
    root: Path,
    slots: Slots,
    children: Children,
    environ: Mapping[str, str],
    on_finished: Callable[[Outcome], None],
) -> dict[str, Outcome]:
    """Bring every stage of `graph` up to date, each in a slot of its own; to be called inside a flow run.

    A failed stage stops what depends on it and nothing else. When the flow is interrupted or cancelled,
    `children` are stopped; what another thread has stopped ends as cancelled.

    Args:
        stale: the stages that DVC's status found changed.
        environ: added to the environment of every stage.
        on_finished: told of each stage, in this thread.
    Returns: the outcome of every stage, in topological order.
    """
    try:
        outcomes = _Walk(graph, stale, root, slots, children, environ).finish(on_finished)
    except BaseException:
        children.stop()
        raise
    return {address: outcomes[address] for address in graph.upstream}


class _Walk:
    """The state of one walk. A stage waits, is in flight, or has an outcome."""

    def __init__(
        self,
        graph: Graph,
        stale: Container[str],
        root: Path,
        slots: Slots,
        children: Children,
        environ: Mapping[str, str],
    ) -> None:
        self._graph = graph
        self._stale = stale
        self._root = root
        self._slots = slots
        self._children = children
        self._environ = environ
        self._futures: dict[str, PrefectFuture[Any]] = {}
        self._outcomes: dict[str, Outcome] = {}
        # Stages that have ended; None when a slot may be free.
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def finish(self, on_finished: Callable[[Outcome], None]) -> dict[str, Outcome]:
        while len(self._outcomes) < len(self._graph.upstream):
            for address in self._ready():
                self._submit(address)
            ended = self._events.get()
            if ended is not None:
                self._outcomes[ended] = self._outcome(ended)
                on_finished(self._outcomes[ended])
        return self._outcomes

    def _outcome(self, address: str) -> Outcome:
        outcome = self._futures[address].result(raise_on_failure=False)
        if isinstance(outcome, BaseException):  # a stage's failure is an outcome; this is a bug of ours
            raise outcome
        return cast(Outcome, outcome)

    def _ready(self) -> list[str]:
        return [
            address
            for address, upstream in self._graph.upstream.items()
            if address not in self._futures and all(up in self._outcomes for up in upstream)
        ]

    def _submit(self, address: str) -> None:
        """Submit a ready stage; one that must run stays waiting while no slot is free."""
        upstream = self._graph.upstream[address]
        states = {up: self._outcomes[up].state for up in sorted(upstream)}
        # All done already: Prefect only draws the graph from them.
        edges = [allow_failure(self._futures[up]) for up in states]
        unfinished = [up for up, state in states.items() if state not in _DONE]
        if unfinished:
            future = skip.submit(address, unfinished, wait_for=edges, return_state=False)
        elif address not in self._stale and all(state == UP_TO_DATE for state in states.values()):
            future = up_to_date.submit(address, wait_for=edges, return_state=False)
        elif self._slots.take(self._wake):
            future = run_stage.submit(
                address, self._root, self._environ, self._children, wait_for=edges, return_state=False
            )
            future.add_done_callback(lambda _: self._slots.give_back())
        else:
            return
        self._futures[address] = future
        future.add_done_callback(lambda _: self._events.put(address))

    def _wake(self) -> None:
        self._events.put(None)
