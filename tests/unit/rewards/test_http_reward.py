"""A reward server, for real, on loopback: batches, patience, and that nothing without an answer scores 0."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rlpipe.errors import ConfigError
from rlpipe.rewards.base import Missing
from rlpipe.rewards.http import http_reward
from rlpipe.types import Task

# (request's number from 0, items) -> (status, body, headers), or None to hang up without an answer.
Behaviour = Callable[[int, list[dict[str, Any]]], tuple[int, Any, dict[str, str]] | None]

TASKS = [Task(f"t:{n}", f"prompt {n}", str(n), {"colour": "red"}) for n in range(10)]
TEXTS = ["x" * n for n in range(10)]


class Server:
    """A reward server that scores a completion by its length, unless told to behave otherwise."""

    def __init__(self) -> None:
        self.requests: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.behaviour: Behaviour = lambda _, items: (200, scores(items), {})
        lock, owner = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
                with lock:
                    number = len(owner.requests)
                    owner.requests.append(items)
                    owner.headers.append(dict(self.headers))
                answer = owner.behaviour(number, items)
                if answer is None:
                    self.close_connection = True
                    return
                status, body, headers = answer
                payload = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/score?model=m"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def scores(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"scores": [len(item["completion"]) for item in items]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def asked(server: Server, count: int = 10, **options: Any) -> list[float | Missing]:
    given = {"url": server.url, "batch_size": 4, "concurrency": 1, "backoff_s": 0.01, "retries": 2, **options}
    return http_reward(TASKS[:count], TEXTS[:count], **given)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_scores_come_back_in_order_in_batches(server: Server, concurrency: int) -> None:
    assert asked(server, concurrency=concurrency) == [float(n) for n in range(10)]
    assert sorted(len(items) for items in server.requests) == [2, 4, 4]
    first = next(items for items in server.requests if items[0]["id"] == "t:0")[0]
    assert first == {"id": "t:0", "prompt": "prompt 0", "completion": "", "answer": "0", "columns": {"colour": "red"}}


def test_what_passes_is_waited_for(server: Server) -> None:
    passing = [(429, {}, {"Retry-After": "0.01"}), (503, {}, {}), None]
    server.behaviour = lambda number, items: passing[number] if number < 3 else (200, scores(items), {})
    assert asked(server, count=4, retries=3) == [0.0, 1.0, 2.0, 3.0]
    assert len(server.requests) == 4


def test_a_server_that_asks_for_time_gets_it(server: Server) -> None:
    server.behaviour = lambda number, items: (
        (429, {}, {"Retry-After": "0.3"}) if number == 0 else (200, scores(items), {})
    )
    started = time.monotonic()
    assert asked(server, count=1, backoff_s=0.0) == [0.0]
    assert time.monotonic() - started >= 0.3


def test_out_of_tries_is_missing_and_never_zero(server: Server) -> None:
    server.behaviour = lambda _, items: (503, {"scores": [1.0] * len(items)}, {})
    assert asked(server, count=3) == [Missing("status 503, 3 tries")] * 3
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((400, {"scores": [1.0, 1.0]}, {}), "status 400"),
        ((302, {}, {"Location": "/elsewhere"}), "status 302"),
        ((200, b"<html>", {}), "an answer that is no JSON"),
        ((200, b"[" * 100_000, {}), "an answer that is no JSON"),
        ((200, [1.0, 1.0], {}), "an answer without a list of 2 scores"),
        ((200, {"scores": [1.0]}, {}), "an answer without a list of 2 scores"),
        ((200, {"scores": "11"}, {}), "an answer without a list of 2 scores"),
    ],
)
def test_an_answer_that_no_patience_mends_is_not_asked_for_again(server: Server, answer: Any, reason: str) -> None:
    server.behaviour = lambda *_: answer
    assert asked(server, count=2) == [Missing(reason)] * 2
    assert len(server.requests) == 1


def test_single_items_may_have_no_score(server: Server) -> None:
    body = {"scores": [0.5, None, None, "1.0", True, 2], "reasons": ["", "too long", None, "", "", ""]}
    answers = {0: body, 1: {"scores": [None]}}
    server.behaviour = lambda number, _: (200, answers[number], {})
    assert asked(server, count=7, batch_size=6) == [
        0.5,
        Missing("the server says: too long"),
        Missing("the server gave null"),
        Missing("the server gave no finite number"),
        Missing("the server gave no finite number"),
        2.0,
        Missing("the server gave null"),
    ]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1" + "0" * 400])
def test_no_number_that_cannot_be_counted_with_comes_in(server: Server, number: str) -> None:
    server.behaviour = lambda *_: (200, f'{{"scores": [{number}]}}'.encode(), {})
    assert asked(server, count=1) == [Missing("the server gave no finite number")]


def test_a_silent_server_is_left_after_the_timeout(server: Server) -> None:
    released = threading.Event()

    def silent(number: int, items: list[dict[str, Any]]) -> None:
        released.wait(5)

    server.behaviour = silent
    started = time.monotonic()
    assert asked(server, count=1, timeout_s=0.2, retries=1) == [Missing("no answer within 0.2 s, 2 tries")]
    assert time.monotonic() - started < 2
    released.set()


def test_a_server_that_trickles_is_left_after_the_timeout_too() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def trickle() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        started = time.monotonic()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        found = http_reward(TASKS[:1], TEXTS[:1], url=url, timeout_s=0.3, retries=0)
        assert time.monotonic() - started < 2
        stop.set()
        thread.join()
    assert found == [Missing("no answer within 0.3 s, 1 tries")]


def test_an_answer_cut_short_is_tried_again(server: Server) -> None:
    whole = json.dumps({"scores": [7]}).encode()
    server.behaviour = lambda number, _: (200, whole, {"Content-Length": str(len(whole) + (number == 0))})
    assert asked(server, count=1) == [7.0]
    assert len(server.requests) == 2


def test_a_server_that_dies_halfway_keeps_what_it_scored() -> None:
    server = Server()
    answered = threading.Event()

    def last_words(number: int, items: list[dict[str, Any]]) -> tuple[int, Any, dict[str, str]]:
        answered.set()
        return (200, scores(items), {})

    server.behaviour = last_words
    # The first batch is answered; then the server is gone for good, its port closed.
    found = asked(server, count=4)
    assert answered.is_set()
    server.stop()
    started = time.monotonic()
    rest = asked(server, count=10, batch_size=2, backoff_s=0.05, retries=2)
    assert found == [0.0, 1.0, 2.0, 3.0]
    # Three tries for the first batch of two, 0.05 + 0.1 s apart; one for each of the four others.
    assert (
        rest
        == [Missing("no answer: Connection refused, 3 tries")] * 2
        + [Missing("no answer: Connection refused, 1 tries")] * 8
    )
    assert time.monotonic() - started < 2


def test_it_dies_within_one_call(server: Server) -> None:
    # From the third request on it hangs up on everyone: 4 scores, then 6 without one.
    server.behaviour = lambda number, items: (200, scores(items), {}) if number < 2 else None
    found = asked(server, batch_size=2)
    assert found[:4] == [0.0, 1.0, 2.0, 3.0]
    assert all(isinstance(score, Missing) and score.reason.startswith("no answer: ") for score in found[4:])
    assert len(server.requests) == 2 + 3 + 1 + 1


def test_the_key_comes_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_KEY", "s3cret")
    asked(server, count=1, api_key_env="REWARD_KEY")
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    monkeypatch.delenv("REWARD_KEY")
    with pytest.raises(ConfigError, match=r"http\.api_key_env=REWARD_KEY: the variable is not set"):
        asked(server, count=1, api_key_env="REWARD_KEY")


def test_a_proxy_of_the_environment_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert asked(server, count=1) == [0.0]


@pytest.mark.parametrize("url", ["127.0.0.1:80/score", "ftp://127.0.0.1/", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"http\.url="):
        http_reward([], [], url=url)
