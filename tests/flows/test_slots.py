"""Slots over several pipelines, and pipelines that stop short of the whole graph; on tiny real DVC projects."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import graph
from flows.slots import Slots
from rlpipe.errors import StageError
from tests.flows.tiny_flow import tiny_set
from tests.flows.tiny_project import STAGES, create, most_at_once, prefect_server, say, traced

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [create(tmp_path / name) for name in ("one", "two")]


def both(roots: list[Path]) -> dict[str, dict[str, float]]:
    """The traces of all projects together, by project and stage; clocks of one machine."""
    return {f"{root.name}/{name}": events for root in roots for name, events in traced(root).items()}


# ---- the pool ---------------------------------------------------------------------------------------


def test_as_many_slots_as_there_are_and_one_more_when_one_is_given_back() -> None:
    slots, woken = Slots(2), []
    assert [slots.take(lambda: None) for _ in range(2)] == [True, True]
    assert not slots.take(lambda: woken.append("first"))
    assert not slots.take(lambda: woken.append("second"))
    slots.give_back()
    assert woken == ["first", "second"]
    assert slots.take(lambda: None)
    slots.give_back()
    assert woken == ["first", "second"]  # each was told once


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_url")
def test_one_slot_for_two_pipelines_is_handed_from_one_to_the_other(two: list[Path]) -> None:
    state = tiny_set([str(root) for root in two], slots=1, return_state=True)
    assert state.is_completed(), state.message
    ran = both(two)
    assert set(ran) == {f"{root.name}/{stage}" for root in two for stage in STAGES}
    assert most_at_once(ran) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_url")
def test_two_pipelines_fill_two_slots_and_a_failure_in_one_is_its_own(two: list[Path]) -> None:
    # `top` alone can start in either project once `apart` is done, so the second slot is the other pipeline's.
    for root in two:
        say(root, top="meet60")
    say(two[0], left="fail")
    state = tiny_set([str(root) for root in two], slots=2, targets=("bottom",), return_state=True)
    assert state.is_failed()
    ran = both(two)
    assert most_at_once({name: ran[name] for name in ("one/top", "two/top")}) == 2
    assert most_at_once(ran) == 2
    assert set(ran) == {"one/top", "one/left", "one/right", "two/top", "two/left", "two/right", "two/bottom"}


@pytest.mark.slow
def test_stopping_the_flow_interrupts_the_stages_of_every_pipeline(two: list[Path]) -> None:
    for root in two:
        say(root, top="hang", apart="calm")
    environ = {**os.environ, "PREFECT_API_URL": prefect_server()}
    command = [sys.executable, "-m", "tests.flows.tiny_flow", *map(str, two), "20"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environ)
    try:
        deadline = time.monotonic() + 120
        while not all((root / "pid.txt").exists() for root in two):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    for root in two:
        ran = traced(root)
        assert "interrupted" in ran["top"]
        assert "bottom" not in ran


# ---- targets ----------------------------------------------------------------------------------------


def test_a_target_brings_what_it_needs_and_nothing_else(fresh: Path) -> None:
    plan = graph.read(fresh)
    assert list(plan.toward(["left"]).upstream) == ["top", "left"]
    assert list(plan.toward(["left", "apart"]).upstream) == ["top", "left", "apart"]
    assert set(plan.toward(["bottom"]).metrics) == {"top", "left", "right", "bottom"}


def test_the_name_of_a_group_stands_for_all_of_it(fresh: Path) -> None:
    with (fresh / "dvc.yaml").open("a") as file:
        file.write("  many:\n    foreach: [a, b]\n    do:\n      cmd: touch many_${item}.txt\n")
        file.write('      outs: ["many_${item}.txt"]\n')
    plan = graph.read(fresh)
    assert set(plan.toward(["many"]).upstream) == {"many@a", "many@b"}
    assert set(plan.toward(["many@b"]).upstream) == {"many@b"}


def test_an_unknown_target_names_the_nearest(fresh: Path) -> None:
    with pytest.raises(StageError, match=r"target botom: dvc\.yaml has no such stage\. Did you mean 'bottom'"):
        graph.read(fresh).toward(["botom"])


@pytest.mark.usefixtures("prefect_url")
def test_a_run_with_targets_is_well_when_they_are(finished: Path) -> None:
    say(finished, left="loud", apart="loud")
    state = tiny_set([str(finished)], targets=("left",), return_state=True)
    assert state.is_completed(), state.message
    assert set(traced(finished)) == {"left"}
    assert set(graph.stale(finished)) == {"bottom", "apart"}
