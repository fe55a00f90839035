"""The loop around every trainer: resume, seed, step, record, checkpoint, progress."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
from tqdm import tqdm

from rlpipe.checkpoint.store import Rows, Stateful, Store
from rlpipe.models.runtime import peak_memory_gb
from rlpipe.types import Metrics


class Recorder(Protocol):
    """Where step metrics go beside the stage's own table: MLflow, through `tracking`."""

    def metrics(self, step: int, values: Metrics) -> None: ...


@dataclass(frozen=True)
class StepResult:
    """A step's metrics, a function of the inputs; and how much work it was, which is none."""

    metrics: dict[str, float]
    tokens: int
    phases: Metrics


class Phases:
    """Wall time by phase of one step. Goes to the tracker only, never into a stage's output."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def mark(self, phase: str) -> None:
        """The time since the last mark belongs to `phase`."""
        now = time.perf_counter()
        name = f"time/{phase}_s"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


class Limit(Stateful, Protocol):
    """Something that may end training before its last step."""

    @property
    def spent(self) -> bool:
        """Whether no further step may be taken."""
        ...


class TokenBudget:
    """How many tokens have been drawn to learn from, against a limit; None is no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self.drawn = limit, 0

    def spend(self, tokens: int) -> None:
        """Count a step's tokens."""
        self.drawn += tokens

    @property
    def spent(self) -> bool:
        """Whether no further step may be taken."""
        return self._limit is not None and self.drawn >= self._limit

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


def run_steps(
    steps: int,
    one_step: Callable[[int], StepResult],
    *,
    states: Mapping[str, Stateful],
    limits: Mapping[str, Limit],
    store: Store,
    recorder: Recorder,
    seed: int,
    shown: Mapping[str, str],
) -> Rows:
    """Take `steps` steps, or as many as the limits allow, from the last checkpoint if there is one.

    Each step starts from a torch seed of its own, so a resumed run draws what an uninterrupted one draws.

    Args:
        states: everything that changes from step to step, beside the limits.
        limits: asked before each step; the first that is spent ends training in good order.
        shown: metric key -> short label, for the progress bar.
    Returns: one row of metrics a step, with its `step`.
    """
    states = {**states, **limits}
    done, rows = store.restore(states)
    with _progress(steps, done) as bar:
        for step in range(done, steps):
            if any(limit.spent for limit in limits.values()):
                break
            torch.manual_seed(seed * 1_000_003 + step)
            began = time.perf_counter()
            result = one_step(step)
            rows.append({"step": step, **result.metrics})
            rate = result.tokens / (time.perf_counter() - began)
            cost = {"perf/tokens_per_s": rate, "perf/peak_mem_gb": peak_memory_gb()}
            recorder.metrics(step, {**result.metrics, **result.phases, **cost})
            bar.set_postfix_str(_line(shown, result.metrics, rate), refresh=False)
            bar.update()
            store.save(step + 1, rows, states)
    return rows


class _Lines(io.TextIOBase):
    """Standard error, one line an update: what a bar becomes in a log file or in the Prefect UI."""

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        if line:
            print(line, file=sys.stderr, flush=True)
        return len(text)


def _progress(steps: int, done: int) -> tqdm[NoReturn]:
    if sys.stderr.isatty():
        return tqdm(total=steps, initial=done, mininterval=0.5, dynamic_ncols=True)
    return tqdm(total=steps, initial=done, file=_Lines(), mininterval=10.0, ncols=100, ascii=True)


def _line(shown: Mapping[str, str], metrics: Metrics, rate: float) -> str:
    numbers = [f"{label} {metrics[key]:.3g}" for key, label in shown.items() if key in metrics]
    return " ".join([*numbers, f"{rate:.0f} tok/s"])
