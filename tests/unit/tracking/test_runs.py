"""What stands in MLflow after a stage and after a pipeline, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlpipe import lineage
from rlpipe.config import Params
from rlpipe.errors import ConfigError, DataError, TrackingError
from rlpipe.tracking import pipeline_run, stage_run
from rlpipe.tracking.process import own_tags
from rlpipe.tracking.store import open_store

Search = Callable[..., list[Any]]


def history(project: Path, params: Params, run: Any, key: str) -> list[tuple[int, float]]:
    client = open_store(project, params).client
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]


def test_a_finished_stage_has_its_parameters_tags_and_output_hash(project: Path, params: Params, runs: Search) -> None:
    with stage_run(project, "sft", params, environ={}):
        pass
    (run,) = runs(stage="sft")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "sft"
    expected = {"seed": "17", **{f"sft.optim.{k}": v for k, v in _optim(params).items()}}
    assert run.data.params == expected, "those of dvc.yaml, under the names of params.yaml, no others"
    assert run.data.tags["rlpipe.output_hash"] == lineage.outputs_hash(lineage.file_outputs(project, "sft"))
    assert run.data.tags["rlpipe.git_commit"] == "none"
    assert "mlflow.parentRunId" not in run.data.tags


def _optim(params: Params) -> dict[str, str]:
    return {key: str(value) for key, value in params.sft.optim.model_dump().items()}


def test_reward_and_both_kl_estimators_stand_at_the_same_steps(project: Path, params: Params, runs: Search) -> None:
    names = ("reward/score_mean", "kl/ref_k1_token", "kl/ref_k3_token")
    with stage_run(project, "sft", params, environ={}) as tracker:
        for step in range(300):
            tracker.metrics(step, {name: step + i / 10 for i, name in enumerate(names)})
    (run,) = runs(stage="sft")
    for i, name in enumerate(names):
        assert history(project, params, run, name) == [(step, step + i / 10) for step in range(300)]
    assert "rlpipe.metrics_lost" not in run.data.tags


def test_a_summary_stands_at_its_step_and_repeats_nothing(project: Path, params: Params, runs: Search) -> None:
    with stage_run(project, "sft", params, environ={}) as tracker:
        tracker.metrics(4, {"sft/loss": 2.0})
        tracker.metrics(5, {"sft/loss": 1.0})
        tracker.summary({"step": 5, "sft/loss": 1.0, "data/rows": 9})
    (run,) = runs(stage="sft")
    assert history(project, params, run, "sft/loss") == [(4, 2.0), (5, 1.0)]
    assert history(project, params, run, "data/rows") == [(5, 9.0)]
    assert "step" not in run.data.metrics


def test_a_metric_outside_the_table_is_refused(project: Path, params: Params) -> None:
    with (
        pytest.raises(TrackingError, match="'kl/unheard_of'"),
        stage_run(project, "sft", params, environ={}) as tracker,
    ):
        tracker.metrics(0, {"kl/unheard_of": 1.0})


def test_a_dataset_is_an_input_with_dvcs_digest(project: Path, params: Params, runs: Search) -> None:
    with stage_run(project, "sft", params, environ={}) as tracker:
        tracker.dataset("demonstrations", project / "models/sft")
    (run,) = runs(stage="sft")
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "demonstrations"
    assert used.dataset.digest == lineage.digest(project / "models/sft")
    assert used.dataset.source == '{"uri": "models/sft"}'


def test_a_models_call_is_a_trace_of_the_run_with_its_words_and_its_time(
    project: Path, params: Params, runs: Search
) -> None:
    asked = [{"role": "user", "content": "Is 7 right?"}]
    with stage_run(project, "sft", params, environ={}) as tracker:
        for reply, ok in (("1", True), ("", False)):
            attributes = {"model": "m", "attempt": 1}
            tracker.trace("judge", 1.5, inputs=asked, outputs=reply, attributes=attributes, ok=ok)
    (run,) = runs(stage="sft")
    store = open_store(project, params)
    traces = store.client.search_traces(locations=[store.experiment_id], run_id=run.info.run_id)
    assert sorted(trace.info.state for trace in traces) == ["ERROR", "OK"]
    [answered] = [trace for trace in traces if trace.info.state == "OK"]
    [span] = answered.data.spans
    assert (span.name, span.inputs, span.outputs) == ("judge", asked, "1")
    assert (span.get_attribute("model"), span.get_attribute("attempt")) == ("m", "1")
    assert span.end_time_ns - span.start_time_ns == pytest.approx(1.5e9, rel=0.01)


def test_an_error_fails_the_run_keeps_its_metrics_and_leaves_no_hash(
    project: Path, params: Params, runs: Search
) -> None:
    def fail() -> None:
        with stage_run(project, "sft", params, environ={}) as tracker:
            tracker.metrics(0, {"sft/loss": 1.0})
            raise DataError("no rows are left.")

    with pytest.raises(DataError):
        fail()
    (run,) = runs(stage="sft")
    assert run.info.status == "FAILED"
    assert run.data.tags["rlpipe.error"] == "rlpipe.errors.DataError: no rows are left."
    assert run.data.metrics == {"sft/loss": 1.0}
    assert "rlpipe.output_hash" not in run.data.tags


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_stage_is_killed_with_its_metrics_sent(
    project: Path, params: Params, runs: Search, number: signal.Signals
) -> None:
    def stopped() -> None:
        with stage_run(project, "sft", params, environ={}) as tracker:
            tracker.metrics(0, {"sft/loss": 1.0})
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    # As a shell starts its background jobs.
    inherited = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            stopped()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, inherited)
    (run,) = runs(stage="sft")
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"sft/loss": 1.0}
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_run_of_a_process_that_is_gone_is_closed_at_the_next_start(
    project: Path, params: Params, runs: Search
) -> None:
    store = open_store(project, params)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = {**own_tags(), "rlpipe.pid": str(gone.pid), "rlpipe.mark": "dead"}
    reused = {**own_tags(), "rlpipe.pid_started": "1", "rlpipe.mark": "reused"}
    alive = {**own_tags(), "rlpipe.mark": "alive"}
    elsewhere = {**dead, "rlpipe.host": "another-host", "rlpipe.mark": "elsewhere"}
    for tags in (dead, reused, alive, elsewhere):
        store.client.create_run(store.experiment_id, tags=tags)
    with stage_run(project, "sft", params, environ={}):
        pass
    status = {mark: runs(mark=mark)[0].info.status for mark in ("dead", "reused", "alive", "elsewhere")}
    assert status == {"dead": "KILLED", "reused": "KILLED", "alive": "RUNNING", "elsewhere": "RUNNING"}


def test_a_child_that_died_unwaited_for_counts_as_gone() -> None:
    from rlpipe.tracking.process import _started, is_gone

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tags = {"rlpipe.pid": str(child.pid), "rlpipe.pid_started": _started(child.pid)}
    assert not is_gone(tags)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert is_gone(tags)
    child.communicate()


def test_an_unknown_stage_is_refused_before_a_run_is_made(project: Path, params: Params, runs: Search) -> None:
    with pytest.raises(ConfigError, match="'stf'"), stage_run(project, "stf", params, environ={}):
        pass
    assert runs() == []


def test_stages_are_children_of_the_pipeline_and_know_the_flow_run(project: Path, params: Params, runs: Search) -> None:
    with (
        pipeline_run(project, params, "checkout", {"prefect.flow_run_id": "f-1"}) as pipeline,
        stage_run(project, "sft", params, environ=pipeline.environ),
    ):
        pass
    (child,), (parent,) = runs(stage="sft"), runs(pipeline="checkout")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id == pipeline.run_id
    assert child.data.tags["prefect.flow_run_id"] == parent.data.tags["prefect.flow_run_id"] == "f-1"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["policy.grpo.kl_coef"] == str(params.policy["grpo"].settings["kl_coef"])


def test_a_restored_stage_is_linked_to_the_run_that_made_its_outputs(
    project: Path, params: Params, runs: Search
) -> None:
    with stage_run(project, "sft", params, environ={}):
        pass
    (project / "metrics/sft.json").write_text('{"other": 1}')
    with stage_run(project, "sft", params, environ={}):
        pass
    first, second = runs(stage="sft")
    of_first = {"models/sft": lineage.digest(project / "models/sft"), "metrics/sft.json": _md5_of("{}")}
    _write_lock(project, of_first)
    with pipeline_run(project, params, "checkout", {}) as pipeline:
        threads = [
            threading.Thread(target=pipeline.stage_finished, args=arguments)
            for arguments in (("sft", "Restored", 0.5), ("policy@grpo", "Skipped", 0.0))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (parent,) = runs(pipeline="checkout")
    assert parent.data.tags["rlpipe.stage.sft"] == first.info.run_id != second.info.run_id
    assert parent.data.tags["rlpipe.state.policy.grpo"] == "Skipped"
    assert "rlpipe.stage.policy.grpo" not in parent.data.tags
    assert parent.data.metrics == {"time/sft_s": 0.5, "time/policy.grpo_s": 0.0}


def test_outputs_made_elsewhere_are_said_to_be(project: Path, params: Params, runs: Search) -> None:
    _write_lock(project, {"models/sft": "0" * 32})
    with pipeline_run(project, params, "checkout", {}) as pipeline:
        pipeline.stage_finished("sft", "UpToDate", 0.0)
    assert runs(pipeline="checkout")[0].data.tags["rlpipe.stage.sft"] == "not in this store"


def test_a_failed_stage_fails_the_pipelines_run(project: Path, params: Params, runs: Search) -> None:
    with pipeline_run(project, params, "checkout", {}) as pipeline:
        pipeline.stage_finished("sft", "Failed", 1.0)
    assert runs(pipeline="checkout")[0].info.status == "FAILED"


def test_a_store_that_breaks_later_does_not_fail_the_stage(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("rlpipe.tracking.sender.RETRY_SECONDS", ())
    with stage_run(project, "sft", params, environ={}) as tracker:
        for method in ("log_batch", "log_inputs", "set_tag", "set_terminated"):
            monkeypatch.setattr(MlflowClient, method, broken)
        tracker.metrics(0, {"sft/loss": 1.0})
        tracker.dataset("demonstrations", project / "models/sft")
    for what in ("metrics of steps 0 to 0", "dataset demonstrations", "status FINISHED"):
        assert f"tracking: {what}" in caplog.text


def _write_lock(project: Path, outs: dict[str, str]) -> None:
    entries = "".join(f"    - path: {path}\n      md5: {md5}\n" for path, md5 in outs.items())
    text = f"schema: '2.0'\nstages:\n  sft:\n    outs:\n{entries}"
    (project / "dvc.lock").write_text(text, encoding="utf-8")


def _md5_of(text: str) -> str:
    import hashlib

    return hashlib.md5(text.encode()).hexdigest()
