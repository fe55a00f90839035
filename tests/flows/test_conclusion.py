"""What a run says of itself at its end."""

from flows.post_training import conclusion
from tasks.stage import CANCELLED, FAILED, RAN, Outcome

RAN_ONE = Outcome("prepare", RAN, 1.0)


def test_all_done_and_dvc_agrees() -> None:
    state = conclusion({"prepare": RAN_ONE}, {})
    assert state.is_completed()
    assert state.message == "1 Ran"


def test_a_failure_shows_its_own_error() -> None:
    state = conclusion({"prepare": RAN_ONE, "sft": Outcome("sft", FAILED, 1.0, error="out of memory")}, {"sft": "new"})
    assert state.is_failed()
    assert state.message == "1 Ran, 1 Failed\n\nsft: out of memory"


def test_a_stopped_run_does_not_blame_changed_files() -> None:
    state = conclusion({"prepare": RAN_ONE, "sft": Outcome("sft", CANCELLED, 0.0)}, {"sft": "changed outs"})
    assert state.is_failed()
    assert state.message == "1 Ran, 1 Cancelled: the run was stopped. Run again to go on."


def test_what_is_stale_though_nothing_failed_is_listed() -> None:
    state = conclusion({"prepare": RAN_ONE}, {"prepare": "changed outs: data deleted"})
    assert state.is_failed()
    assert "prepare: changed outs: data deleted" in str(state.message)
