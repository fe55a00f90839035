"""The graph is DVC's: addresses, edges, order and staleness, wherever we stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import graph
from rlpipe.errors import StageError
from tests.flows.tiny_project import STAGES, say

_MATRIX = """
  many:
    foreach: [a, b]
    do:
      cmd: touch many_${item}.txt
      deps: [apart.txt]
      outs: ["many_${item}.txt"]
"""


def test_upstreams_follow_the_files(fresh: Path) -> None:
    upstream = graph.read(fresh).upstream
    assert dict(upstream) == {
        "top": frozenset(),
        "left": {"top"},
        "right": {"top"},
        "bottom": {"left", "right"},
        "apart": frozenset(),
    }


def test_order_is_topological_and_as_written_where_free(fresh: Path) -> None:
    # `many` needs `apart`, so it comes last; every other stage is where dvc.yaml has it.
    pipeline = fresh / "dvc.yaml"
    first, _, rest = pipeline.read_text().partition("stages:\n")
    pipeline.write_text(f"{first}stages:{_MATRIX}{rest}")
    assert list(graph.read(fresh).upstream) == [*STAGES, "many@a", "many@b"]


def test_a_data_file_that_a_stage_reads_is_in_the_graph_and_an_idle_one_is_not(fresh: Path) -> None:
    from dvc.repo import Repo

    for name in ("read.csv", "idle.csv"):
        (fresh / name).write_text(name)
    with Repo(str(fresh)) as repo:
        repo.add([str(fresh / "read.csv"), str(fresh / "idle.csv")])
    with (fresh / "dvc.yaml").open("a") as file:
        file.write("  reader:\n    cmd: cp read.csv copy.csv\n    deps: [read.csv]\n    outs: [copy.csv]\n")
    upstream = graph.read(fresh).upstream
    assert upstream["reader"] == {"read.csv.dvc"}
    assert "idle.csv.dvc" not in upstream


def test_metric_files_are_listed(fresh: Path) -> None:
    metrics = graph.read(fresh).metrics
    assert metrics["bottom"] == ("bottom.json",)
    assert metrics["top"] == ()


def test_a_project_that_never_ran_is_all_stale(fresh: Path) -> None:
    assert set(graph.stale(fresh)) == set(STAGES)


def test_the_reason_names_what_changed(finished: Path) -> None:
    assert graph.stale(finished) == {}
    say(finished, left="loud")
    stale = graph.stale(finished)
    assert set(stale) == {"left"}  # `bottom` is below it, but none of its own files has changed yet
    assert "left" in stale["left"]
    assert "modified" in stale["left"]


def test_a_broken_pipeline_is_an_error_with_dvcs_reason(fresh: Path) -> None:
    (fresh / "dvc.yaml").write_text("stages:\n  top:\n    comand: true\n")
    with pytest.raises(StageError, match=r"dvc\.yaml"):
        graph.read(fresh)
