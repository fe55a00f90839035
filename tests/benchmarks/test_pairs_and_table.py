"""Ratios, peak memory, and the table that the docs show."""

import importlib
import json
import subprocess

import pytest

from benchmarks import all as every
from benchmarks import pairs, table


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Files of their own."""
    monkeypatch.setattr(pairs, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(pairs, "MACHINE", tmp_path / "machine.json")
    return tmp_path / "results.json"


def test_a_ratio_is_the_median_of_the_pairs_not_of_the_sides():
    """Pairs (1, 2), (2, 2), (1, 5): ratios 2, 1, 5; the first of each side is thrown away."""
    mine, theirs = iter([9.0, 1.0, 2.0, 1.0]), iter([9.0, 2.0, 2.0, 5.0])
    result = pairs.timed("x", lambda: next(mine), lambda: next(theirs), 3)
    assert (result.ratio, result.ratio_min, result.ratio_max) == (2.0, 1.0, 5.0)
    assert (result.ours, result.peer, result.pairs) == (1.0, 2.0, 3)


def test_sides_take_turns():
    turns = []
    pairs.timed("x", lambda: turns.append("A") or 1.0, lambda: turns.append("B") or 1.0, 2, warmed_up=True)
    assert turns == ["A", "B", "A", "B"]


def test_a_name_has_one_result(results):
    for seconds in (1.0, 3.0):
        pairs.record(pairs.Result("x", seconds, 6.0, "s", 6 / seconds, 1.0, 9.0, 5))
    [kept] = json.loads(results.read_text())
    assert kept == {
        "name": "x", "ours": 3.0, "peer": 6.0, "unit": "s", "ratio": 2.0, "ratio_min": 1.0, "ratio_max": 9.0,
        "pairs": 5,
    }  # fmt: skip


def _hold(megabytes):
    pairs.from_here()
    return bytearray(megabytes * 1_000_000)


def small():
    """20 MB."""
    _hold(20)


def large():
    """200 MB."""
    _hold(200)


def dies():
    """As one does for which memory ends."""
    import os

    os._exit(9)


def test_peak_memory_is_what_a_process_of_its_own_held():
    result = pairs.peak_memory("x", small, large)
    assert result.ours == pytest.approx(0.02, abs=0.01)
    assert result.peer == pytest.approx(0.2, abs=0.01)


def test_a_process_that_dies_is_no_endless_wait():
    with pytest.raises(RuntimeError, match="died"):
        pairs.peak_memory("x", dies, small)


def _result(name, unit="s", **changes):
    return {
        "name": name, "ours": 2.0, "peer": 20.0, "unit": unit, "ratio": 10.0, "ratio_min": 9.0, "ratio_max": 11.0,
        "pairs": 5, **changes,
    }  # fmt: skip


def test_a_row_shows_the_ratio_and_what_was_to_be_reached():
    name = "GRPO step, group shapes, 15.7M"
    made = table.table([_result(f"{name}, memory", "GB"), _result("another"), _result(name)], {"cores": "2"})
    assert made.splitlines()[0] == "Measured on cores 2."
    assert made.splitlines()[-3:] == [
        f"| {name} | 2 s | 20 s | 10.00 [9.00, 11.00] | 5 | ≥ 15 |",
        f"| {name}, memory | 2 GB | 20 GB | 10.00 [9.00, 11.00] | 5 | ≥ 8.33 (at most 0.12 of its memory) |",
        "| another | 2 s | 20 s | 10.00 [9.00, 11.00] | 5 | – |",
    ]


def test_only_what_stands_between_the_markers_changes():
    page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.with_table(page, "new") == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="must hold"):
        table.with_table("no markers", "new")


def test_the_docs_show_what_was_measured():
    page = table.PAGE.read_text()
    assert table.with_table(page, table.current()) == page, "python -m benchmarks.table"


def test_every_target_is_some_benchmarks_name():
    """A renamed benchmark would lose its target without a word."""
    sources = "".join(
        file.read_text() for file in (table.CHECKOUT / "benchmarks").glob("*.py") if file.name != "table.py"
    )
    for name in table.TARGETS:
        assert name.removesuffix(", memory") in sources, name


def test_one_benchmarks_failure_leaves_the_others_running(monkeypatch):
    ran = []

    def process(command, **_):
        ran.append(command[2])
        if command[2] == "benchmarks.slow":
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, int(command[2] == "benchmarks.broken"))

    monkeypatch.setattr(every.subprocess, "run", process)
    failed = every.run([every.Job((name,), 1) for name in ("broken", "slow", "well")])
    assert ran == ["benchmarks.broken", "benchmarks.slow", "benchmarks.well"]
    assert failed == ["broken: exit status 1", "slow: not done after 1 s"]


def test_every_job_is_a_benchmark():
    for name in {job.words[0] for job in (*every.QUICK, *every.FULL, *every.LONG)}:
        assert callable(importlib.import_module(f"benchmarks.{name}").main), name
