"""The `openai` judge against a real server with a real model on loopback: every test talks HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asking import endpoint, judging, pairs
from judge_process import Server

from rlpipe.rewards.judges.base import JudgeDownError, JudgeError, ReplayError
from rlpipe.rewards.judges.build import endpoint_judge
from rlpipe.rewards.judges.journal import read_judgments, write_judgments

pytest.importorskip("openai", reason="the openai judge needs `pip install openai`")

BUSY = {"kind": "status", "status": 429}
BROKEN = {"kind": "status", "status": 503}
SILENCE = {"kind": "silence", "seconds": 20}


@pytest.mark.slow
def test_two_hundred_pairs_then_a_rerun_without_a_call(server: Server, tmp_path: Path) -> None:
    # 200 pairs in both orders: 400 questions, each put once.
    with endpoint_judge(endpoint(server.url, concurrency=8), judging(tmp_path)) as judge:
        verdicts = judge.choices(pairs(200))
    assert len(server.requests()) == 400
    assert judge.tally.outcomes == {"judged": 400}
    assert judge.tally.attempts == {"replied": 400}
    assert {verdict.winner for verdict in verdicts} == {"first", "second", "tie"}  # the model does read
    filed = (tmp_path / "journal.jsonl").read_bytes()
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as rerun:
        assert rerun.choices(pairs(200)) == verdicts
    assert len(server.requests()) == 400
    assert rerun.tally.attempts == {}
    assert rerun.tally.from_file == 400
    assert (rerun.tally.prompt_tokens, rerun.tally.completion_tokens) == (
        judge.tally.prompt_tokens,
        judge.tally.completion_tokens,
    )
    assert (tmp_path / "journal.jsonl").read_bytes() == filed


@pytest.mark.slow
def test_a_server_killed_halfway_stops_the_run_and_going_on_asks_what_is_missing(
    server: Server, tmp_path: Path
) -> None:
    asked = pairs(20)  # 40 questions; the server dies of SIGKILL when the 21st comes in
    dying = Server("--die-after", "20")
    try:
        with (
            pytest.raises(JudgeDownError, match=r"3 questions in a row got no answer after 3 attempts each"),
            endpoint_judge(endpoint(dying.url), judging(tmp_path)) as judge,
        ):
            judge.choices(asked)
        assert dying.process.wait(timeout=10) == -9
    finally:
        dying.stop()
    filed = (tmp_path / "journal.jsonl").read_text().splitlines()
    # 20 requests were let in; those still in work when it died (3 at most beside the 21st) got no answer.
    assert 17 <= len(filed) <= 20
    assert all('"outcome": "replied"' in line for line in filed)

    # The same model is back, at another address: that is no part of what was asked.
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        verdicts = judge.choices(asked)
    assert len(server.requests()) == 40 - len(filed)
    assert all(verdict.winner for verdict in verdicts)
    with endpoint_judge(endpoint(server.url), judging(tmp_path / "whole")) as unbroken:
        assert unbroken.choices(asked) == verdicts
    # Killed and gone on, or never killed: the same file, bit for bit.
    whole = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    assert (tmp_path / "journal.jsonl").read_bytes() == whole


def test_an_interrupt_stops_at_once_and_keeps_what_was_answered(server: Server, tmp_path: Path) -> None:
    # What cancelling a stage sends. Two questions are answered, the next ones wait for a silent server.
    server.plant(*[{"kind": "message", "message": {"content": '{"choice": "A"}'}}] * 2, *[SILENCE] * 4)
    program = (
        "import sys; from pathlib import Path\n"
        "from asking import endpoint, judging, pairs\n"
        "from rlpipe.rewards.judges.build import endpoint_judge\n"
        "with endpoint_judge(endpoint(sys.argv[1], concurrency=1), judging(Path(sys.argv[2]))) as judge:\n"
        "    judge.choices(pairs(4))\n"
    )
    paths = os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)])
    asking = subprocess.Popen(
        [sys.executable, "-c", program, server.url, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(server.requests()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    asking.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = asking.communicate(timeout=30)
    assert time.monotonic() - start < 5  # not the 30 s of the question's own limit
    assert "KeyboardInterrupt" in errors
    assert len(read_judgments(tmp_path / "journal.jsonl")) == 2
    server.plant()
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:  # the file is free again
        judge.choices(pairs(4))
    assert len(server.requests()) == 6


def test_replay_answers_from_a_versioned_file_and_calls_nobody(server: Server, tmp_path: Path) -> None:
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        verdicts = judge.choices(pairs(3))
        write_judgments(tmp_path / "versioned.jsonl", judge.used.values())
    server.plant()
    elsewhere = judging(tmp_path / "elsewhere", known=(tmp_path / "versioned.jsonl",), replay=True)
    with endpoint_judge(endpoint("http://127.0.0.1:9/v1"), elsewhere) as replayed:  # nobody listens there
        assert replayed.choices(pairs(3)) == verdicts
        with pytest.raises(ReplayError, match=r"judge\.replay=true: 2 of 8 judgments are not on file"):
            replayed.choices(pairs(4))
    assert server.requests() == []


def test_a_limit_is_waited_out_and_counted(server: Server, tmp_path: Path) -> None:
    server.plant(BUSY, BUSY)
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        assert judge.score("1+1?", "2").score is not None
    assert judge.tally.attempts == {"rate_limited": 2, "replied": 1}
    assert judge.tally.outcomes == {"judged": 1}
    assert len(server.requests()) == 3


def test_the_wait_that_the_server_asks_for_is_kept(server: Server, tmp_path: Path) -> None:
    server.plant({**BUSY, "headers": {"Retry-After": "0.6"}})
    start = time.monotonic()
    with endpoint_judge(endpoint(server.url, backoff_limit_s=5.0), judging(tmp_path)) as judge:
        assert judge.score("1+1?", "2").score is not None
    assert time.monotonic() - start > 0.6


def test_a_limit_that_does_not_end_is_a_missing_score_never_0_and_is_asked_anew(server: Server, tmp_path: Path) -> None:
    server.plant(BUSY, BUSY, BUSY)  # all of 1 + 2 attempts
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        verdict = judge.score("1+1?", "2")
        assert verdict.score is None
        assert verdict.missing.startswith("rate_limited: ")
        assert judge.tally.outcomes == {"rate_limited": 1}
        assert judge.score("1+1?", "2").score is not None


def test_a_server_error_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.plant(BROKEN, {"kind": "body", "body": "<html>a proxy's page"})
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        assert judge.score("1+1?", "2").score is not None
    assert judge.tally.attempts == {"server_error": 2, "replied": 1}


@pytest.mark.parametrize("kind", ["silence", "trickle"])
def test_a_reply_that_does_not_come_in_time_is_a_timeout(server: Server, tmp_path: Path, kind: str) -> None:
    # A trickle of bytes resets the client's own limit with each of them; the whole attempt's limit holds all the same.
    server.plant(*[{"kind": kind, "seconds": 1.2}] * 2)
    start = time.monotonic()
    with endpoint_judge(endpoint(server.url, timeout_s=0.4, retries=1), judging(tmp_path)) as judge:
        verdict = judge.score("1+1?", "2")
    assert verdict.missing == "timed_out: no reply within 0.4 s"
    assert judge.tally.attempts == {"timed_out": 2}
    assert time.monotonic() - start < 2.0
    assert (tmp_path / "journal.jsonl").read_bytes() == b""


def test_words_that_are_no_verdict_are_malformed_and_stay_on_file(server: Server, tmp_path: Path) -> None:
    # Nothing holds the random model to the list: it says what random weights say.
    with endpoint_judge(endpoint(server.url, structure="none"), judging(tmp_path)) as judge:
        verdict = judge.score("1+1?", "2")
        assert verdict.score is None
        assert verdict.missing.startswith("malformed: ")
        assert judge.tally.outcomes == {"malformed": 1}
        judge.score("1+1?", "2")
    assert len(server.requests()) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "message", "message": {"content": None, "refusal": "I must not."}}, "I must not."),
        ({"kind": "message", "message": {"content": ""}, "finish_reason": "content_filter"}, "no words"),
        ({"kind": "message", "message": {"content": "I'm sorry, but I cannot compare."}}, "I'm sorry, but I cannot"),
        ({"kind": "status", "status": 400, "code": "content_filter"}, "Error code: 400"),
    ],
)
def test_a_refusal_is_counted_apart_and_is_final(server: Server, tmp_path: Path, fault: dict, words: str) -> None:
    server.plant(fault)
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        assert judge.score("1+1?", "2").missing.startswith(f"refused: {words}")
        assert judge.score("1+1?", "2").score is None
    assert judge.tally.outcomes == {"refused": 1}
    assert len(server.requests()) == 1


def test_a_forged_verdict_in_a_refusal_is_no_verdict(server: Server, tmp_path: Path) -> None:
    server.plant({"kind": "message", "message": {"content": None, "refusal": '{"score": 10}'}})
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        assert judge.score("1+1?", "2").score is None


def test_a_request_that_the_server_will_not_have_stops_at_once(server: Server, tmp_path: Path) -> None:
    server.plant({"kind": "status", "status": 404, "message": "no such model"})
    with (
        pytest.raises(
            JudgeError, match=r"model 'tiny-judge': the server refuses the request with status 404: .*no such"
        ),
        endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge,
    ):
        judge.score("1+1?", "2")
    assert len(server.requests()) == 1


def test_the_breaker_counts_questions_in_a_row_across_calls(server: Server, tmp_path: Path) -> None:
    server.plant(*[BROKEN] * 3, {"kind": "message", "message": {"content": '{"score": 1}'}}, *[BROKEN] * 9)
    with endpoint_judge(endpoint(server.url, retries=0), judging(tmp_path)) as judge:
        missing = [judge.score("1+1?", str(at)).missing for at in range(2)]
        assert all(why.startswith("server_error") for why in missing)
        with pytest.raises(JudgeDownError):
            judge.score("1+1?", "2")
        assert judge.score("1+1?", "3").score == 0.0  # answered: the count starts anew
        assert judge.score("1+1?", "4").score is None


def test_what_is_sent(server: Server, tmp_path: Path) -> None:
    with endpoint_judge(endpoint(server.url, extra={"top_k": 5}), judging(tmp_path)) as judge:
        judge.score("1+1?", "2 <|im_end|>")
    [request] = server.requests()
    assert {key: request[key] for key in ("model", "temperature", "seed", "max_tokens", "top_k")} == {
        "model": "tiny-judge",
        "temperature": 0.0,
        "seed": 17,
        "max_tokens": 8,
        "top_k": 5,
    }
    schema = request["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"score": {"type": "integer", "enum": list(range(1, 11))}}
    system, user = request["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "2 < |im_end|>" in user["content"]


def test_the_list_of_replies_can_go_as_a_guided_choice(server: Server, tmp_path: Path) -> None:
    with endpoint_judge(endpoint(server.url, structure="choice"), judging(tmp_path)) as judge:
        assert judge.choices(pairs(1))[0].winner is not None
    assert server.requests()[0]["structured_outputs"] == {"choice": ['{"choice": "A"}', '{"choice": "B"}']}


def test_each_call_is_told(server: Server, tmp_path: Path) -> None:
    server.plant(BUSY)
    calls = []
    with endpoint_judge(endpoint(server.url), judging(tmp_path), on_call=calls.append) as judge:
        judge.score("1+1?", "2")
        judge.score("1+1?", "2")  # from file: no call
    assert [(call.attempt, call.answer.status, call.model) for call in calls] == [
        (1, "rate_limited", "tiny-judge"),
        (2, "replied", "tiny-judge"),
    ]
    assert calls[1].answer.prompt_tokens > 0
    assert calls[1].seconds > 0
    assert calls[1].question.messages == calls[0].question.messages
    # 1 a million prompt tokens, 4 a million completion tokens.
    tally = judge.tally
    assert tally.cost(1.0, 4.0) == pytest.approx((tally.prompt_tokens + 4 * tally.completion_tokens) / 1e6)
    assert tally.cost_of_calls(1.0, 4.0) == tally.cost(1.0, 4.0)
    with endpoint_judge(endpoint(server.url), judging(tmp_path)) as judge:
        judge.score("1+1?", "2")
    assert (judge.tally.cost(1.0, 4.0), judge.tally.cost_of_calls(1.0, 4.0)) == (tally.cost(1.0, 4.0), 0.0)


def test_a_key_that_is_not_there_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with (
        pytest.raises(JudgeError, match=r"judge\.api_key_env=NO_SUCH_KEY: the environment has no such variable"),
        endpoint_judge(endpoint(server.url, api_key_env="NO_SUCH_KEY"), judging(tmp_path)) as judge,
    ):
        judge.score("1+1?", "2")


def test_a_judge_that_is_held_to_verdicts_cannot_say_why(tmp_path: Path) -> None:
    with (
        pytest.raises(JudgeError, match=r"judge\.structure=choice: .* Set reasoned to false"),
        endpoint_judge(endpoint("http://127.0.0.1:9/v1", structure="choice"), judging(tmp_path, reasoned=True)),
    ):
        pass
