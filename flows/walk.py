"""Walk the graph: start each stage when its upstreams are done and a slot is free."""

from __future__ import annotations

import queue
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

from prefect import allow_failure
from prefect.futures import PrefectFuture

from flows.graph import Graph
from tasks.process import Children
from tasks.stage import RAN, RESTORED, UP_TO_DATE, Outcome, run_stage, skip, up_to_date

# Less than the 30 seconds after which Prefect's runner kills a cancelled flow.
GRACE_SECONDS = 20.0

_DONE = (RAN, RESTORED, UP_TO_DATE)


def walk(
    graph: Graph,
    stale: Container[str],
    *,
    root: Path,
    slots: int,
    environ: Mapping[str, str],
    on_finished: Callable[[Outcome], None],
    grace: float = GRACE_SECONDS,
) -> dict[str, Outcome]:
    """Bring every stage of `graph` up to date, at most `slots` at once; to be called inside a flow run.

    A failed stage stops what depends on it and nothing else. When the flow is interrupted or cancelled, the
    running stages are interrupted too, and killed after `grace` seconds.

    Args:
        stale: the stages that DVC's status found changed.
        environ: added to the environment of every stage.
        on_finished: told of each stage, in this thread.
    Returns: the outcome of every stage, in topological order.
    """
    children = Children()
    try:
        outcomes = _Walk(graph, stale, root, slots, environ, children).finish(on_finished)
    except BaseException:
        children.stop(grace)
        raise
    return {address: outcomes[address] for address in graph.upstream}


class _Walk:
    """The state of one walk. A stage waits, is in flight, or has an outcome."""

    def __init__(
        self,
        graph: Graph,
        stale: Container[str],
        root: Path,
        slots: int,
        environ: Mapping[str, str],
        children: Children,
    ) -> None:
        self._graph = graph
        self._stale = stale
        self._root = root
        self._slots = slots
        self._environ = environ
        self._children = children
        self._futures: dict[str, PrefectFuture[Any]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._running: set[str] = set()
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def finish(self, on_finished: Callable[[Outcome], None]) -> dict[str, Outcome]:
        while len(self._outcomes) < len(self._graph.upstream):
            for address in self._ready():
                self._submit(address)
            address = self._ended.get()
            self._running.discard(address)
            outcome = self._futures[address].result(raise_on_failure=False)
            if isinstance(outcome, BaseException):  # a stage's failure is an outcome; this is a bug of ours
                raise outcome
            self._outcomes[address] = outcome
            on_finished(outcome)
        return self._outcomes

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
        elif len(self._running) < self._slots:
            self._running.add(address)
            future = run_stage.submit(
                address, self._root, self._environ, self._children, wait_for=edges, return_state=False
            )
        else:
            return
        self._futures[address] = future
        future.add_done_callback(lambda _: self._ended.put(address))
