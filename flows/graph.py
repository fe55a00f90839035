"""What DVC says of a workspace: its stages, what each needs, and which are out of date."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from dvc.dvcfile import PROJECT_FILE
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage, Stage

from rlpipe.errors import StageError, nearest

# DVC is not written for threads: the pipelines of a bakeoff ask it one at a time.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Graph:
    """The stages of `dvc.yaml` and all that they need, by DVC address such as `policy@grpo`.

    `upstream` is in topological order and, where that leaves a choice, in the order of `dvc.yaml`.
    `metrics` are the metric files of each stage, relative to the workspace.
    """

    upstream: Mapping[str, frozenset[str]]
    metrics: Mapping[str, tuple[str, ...]]

    def toward(self, targets: Sequence[str]) -> Graph:
        """The part that `targets` need, themselves included.

        Args:
            targets: addresses; `evaluate` stands for every `evaluate@...`.
        Raises: StageError for a target that `dvc.yaml` lacks.
        """
        wanted: set[str] = set()
        for target in targets:
            named = {address for address in self.upstream if target in (address, address.partition("@")[0])}
            if not named:
                raise StageError(f"target {target}: dvc.yaml has no such stage.{nearest(target, self.upstream)}")
            wanted |= named
        for address in reversed(list(self.upstream)):
            if address in wanted:
                wanted |= self.upstream[address]
        return Graph(
            {address: needs for address, needs in self.upstream.items() if address in wanted},
            {address: files for address, files in self.metrics.items() if address in wanted},
        )


def read(root: Path) -> Graph:
    """The graph of the workspace `root`. Raises: StageError with DVC's reason."""
    try:
        with _ONE_AT_A_TIME, Repo(str(root)) as repo:
            needs = repo.index.graph  # an edge points from a stage to one that it needs
            wanted = [stage for stage in repo.index.stages if stage.path_in_repo == PROJECT_FILE]
            reached = set(wanted).union(*(networkx.descendants(needs, stage) for stage in wanted))
            rank = {stage: position for position, stage in enumerate(repo.index.stages)}
            order = networkx.lexicographical_topological_sort(needs.subgraph(reached).reverse(), key=rank.get)
            stages = list(order)
            return Graph(
                {_address(stage): frozenset(map(_address, needs.successors(stage))) for stage in stages},
                {_address(stage): tuple(o.def_path for o in stage.outs if o.metric) for stage in stages},
            )
    except DvcException as error:
        raise StageError(f"dvc.yaml: {error}") from error


def stale(root: Path) -> dict[str, str]:
    """The stages that DVC would run, each with DVC's reason; empty when the workspace is up to date.

    Raises: StageError with DVC's reason, for one when another DVC process is running a stage here.
    """
    try:
        with _ONE_AT_A_TIME, Repo(str(root), _wait_for_lock=True) as repo:
            address = {stage.addressing: _address(stage) for stage in repo.index.stages}
            return {address[stage]: _reason(changes) for stage, changes in repo.status().items()}
    except DvcException as error:
        raise StageError(f"dvc status: {error}") from error


def _address(stage: Stage) -> str:
    """What `dvc repro` calls a stage in the workspace's root; DVC's `addressing` depends on where we are."""
    if not isinstance(stage, PipelineStage):
        return str(stage.path_in_repo)
    return stage.name if stage.path_in_repo == PROJECT_FILE else f"{stage.path_in_repo}:{stage.name}"


def _reason(changes: list[Any]) -> str:
    """DVC's nested report on one stage in a line, such as `changed deps: data/prepared modified`."""
    parts = []
    for change in changes:
        if isinstance(change, str):
            parts.append(change)
            continue
        for kind, entries in change.items():
            named = ", ".join(f"{path} {_flat(state)}" for path, state in entries.items())
            parts.append(f"{kind}: {named}")
    return "; ".join(parts)


def _flat(state: Any) -> str:
    """The state of one path; a params file has one state for each parameter."""
    if isinstance(state, Mapping):
        return "(" + ", ".join(f"{name} {_flat(value)}" for name, value in state.items()) + ")"
    return str(state)
