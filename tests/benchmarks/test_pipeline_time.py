"""A pipeline's wall time against the bounds that its stages' own times set."""

from __future__ import annotations

import time
from collections.abc import Set
from pathlib import Path

import pytest

from benchmarks.pipeline import Finished, measured, read, shown
from rlpipe.config import load
from rlpipe.tracking.store import open_store

#  a -> b -> d
#  a -> c -> d       e stands alone
GRAPH: dict[str, Set[str]] = {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}, "e": set()}
ROOT = Path(__file__).parents[2]


def test_the_critical_path_is_the_longest_way_through_the_graph() -> None:
    """a 1, b 5, c 2, d 3, e 4: the way by b takes 9; all take 15, 7.5 in two slots."""
    finished = Finished(10.0, {"a": 1.0, "b": 5.0, "c": 2.0, "d": 3.0, "e": 4.0}, {})
    result = measured(GRAPH, finished, slots=2)
    assert (result.critical, result.path, result.total, result.bound) == (9.0, ("a", "b", "d"), 15.0, 9.0)
    assert result.wall / result.bound == pytest.approx(10 / 9)


def test_one_slot_is_bound_by_the_sum() -> None:
    finished = Finished(30.0, {"a": 1.0, "b": 5.0, "c": 2.0, "d": 3.0, "e": 4.0}, {})
    assert measured(GRAPH, finished, slots=1).bound == 15.0


def test_a_stage_that_did_not_run_takes_no_time_and_is_not_named() -> None:
    result = measured(GRAPH, Finished(6.0, {"b": 2.0, "d": 1.0}, {}), slots=2)
    assert (result.critical, result.path) == (3.0, ("b", "d"))


def test_the_records_of_a_run_are_its_stages_runs_and_its_own_seconds(tmp_path: Path) -> None:
    store = open_store(tmp_path, load(ROOT))
    client, now = store.client, int(time.time() * 1000)

    def made(name: str, tags: dict[str, str], begins: int, ends: int, status: str = "FINISHED") -> str:
        run = client.create_run(store.experiment_id, start_time=now + begins, tags=tags, run_name=name)
        client.set_terminated(run.info.run_id, status, now + ends)
        return str(run.info.run_id)

    older = made("older", {"rlpipe.pipeline": "older"}, 0, 9000)
    parent = made("checkout", {"rlpipe.pipeline": "checkout"}, 10_000, 22_500)
    client.log_metric(parent, "time/policy.grpo_s", 8.0)
    made("policy@grpo", {"mlflow.parentRunId": parent, "rlpipe.stage": "policy@grpo"}, 12_000, 17_000)
    made("sft", {"mlflow.parentRunId": parent, "rlpipe.stage": "sft"}, 12_000, 13_000, "FAILED")
    made("sft", {"mlflow.parentRunId": older, "rlpipe.stage": "sft"}, 1000, 3000)

    finished = read(store, {"policy@grpo", "sft"}, None)
    assert finished == Finished(12.5, {"policy@grpo": 5.0}, {"policy@grpo": 8.0})
    assert read(store, {"sft"}, older) == Finished(9.0, {"sft": 2.0}, {})
    text = shown(measured({"sft": set(), "policy@grpo": {"sft"}}, finished, slots=2), finished)
    assert "policy@grpo                       5.0           3.0" in text
    assert "wall over the bound        2.50" in text
