"""Many programs at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from rlpipe.sandbox.isolation import Isolation
from rlpipe.sandbox.jobs import Job, Verdict
from rlpipe.sandbox.limits import Limits
from rlpipe.sandbox.supervise import Bench


@dataclass(frozen=True)
class Batch:
    """One verdict a job, in order, and the seconds that all of them took together."""

    verdicts: tuple[Verdict, ...]
    wall_s: float

    @property
    def programs_per_s(self) -> float:
        """The throughput; 0 of no programs."""
        return len(self.verdicts) / self.wall_s if self.verdicts else 0.0


def judge_all(jobs: Sequence[Job], isolation: Isolation, limits: Limits, *, workers: int) -> Batch:
    """Judges the jobs, `workers` of them at a time. A worker is a thread: the work is in the guests' processes.

    An exception, such as an interrupt, comes through when the jobs then under way are done.
    """
    began = time.perf_counter()
    waiting: SimpleQueue[int] = SimpleQueue()
    for at in range(len(jobs)):
        waiting.put(at)
    verdicts: dict[int, Verdict] = {}

    def work() -> None:
        with Bench(isolation.level, limits) as bench:
            while True:
                try:
                    at = waiting.get_nowait()
                except Empty:
                    return
                verdicts[at] = bench.judge(jobs[at])

    workers = min(workers, len(jobs))
    with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="sandbox") as pool:
        try:
            for done in [pool.submit(work) for _ in range(workers)]:
                done.result()
        except BaseException:  # an interrupt, above all: the workers end with the job they have
            _empty(waiting)
            raise
    return Batch(tuple(verdicts[at] for at in range(len(jobs))), time.perf_counter() - began)


def _empty(queue: SimpleQueue[int]) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return
