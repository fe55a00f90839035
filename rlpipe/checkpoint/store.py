"""Resumable training state, written atomically: killed at any moment, the last whole checkpoint remains."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

Rows = list[dict[str, float]]


class Stateful(Protocol):
    """Anything whose state can be taken out and put back: optimizers, learners, adaptive coefficients."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Store:
    """One stage's checkpoint under `folder/<key>.pt`.

    `key` is a hash of everything that the stage's result depends on; a checkpoint of another key is stale and
    removed. Used as a context: a stage that ends well removes its own too, so that a forced rerun is a real one.
    """

    def __init__(self, folder: Path, key: str, every: int) -> None:
        self._folder, self._file, self._every = folder, folder / f"{key}.pt", every
        self._stages: dict[str, Stateful] = {}

    def __enter__(self) -> Store:
        if self._folder.exists():
            for stale in self._folder.iterdir():
                if stale != self._file:
                    stale.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self, states: Mapping[str, Stateful]) -> None:
        """Save these, which are the stage's own, beside what a trainer saves; to be called before `restore`."""
        self._stages |= states

    def restore(self, states: Mapping[str, Stateful]) -> tuple[int, Rows]:
        """Put the saved state back. Returns: the steps already done, and their metric rows."""
        if not self._file.exists():
            return 0, []
        saved = torch.load(self._file, weights_only=True)
        for name, state in {**states, **self._stages}.items():
            state.load_state_dict(saved["states"][name])
        return saved["steps"], saved["rows"]

    def save(self, steps: int, rows: Rows, states: Mapping[str, Stateful]) -> None:
        """Keep the state after `steps` steps, if a checkpoint is due."""
        if steps % self._every:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        with partial.open("wb") as file:
            saved = {name: state.state_dict() for name, state in {**states, **self._stages}.items()}
            torch.save({"steps": steps, "rows": rows, "states": saved}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._file)
