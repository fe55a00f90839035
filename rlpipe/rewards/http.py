"""A reward server: completions go out in batches as JSON, scores come back."""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from rlpipe.errors import ConfigError
from rlpipe.rewards.base import Missing
from rlpipe.types import Task

_MOST_BYTES = 64 * 1024 * 1024
_LONGEST_WAIT_S = 60.0
_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class _Server:
    """Where requests go, and how patiently."""

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    retries: int
    backoff_s: float


class _Failure(Exception):  # noqa: N818 - a verdict on one try, handled in this file
    """A try without an answer; `again` says whether another may have one, `wait_s` what the server asked for."""

    def __init__(self, reason: str, *, again: bool, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait_s = reason, again, wait_s


def http_reward(
    tasks: Sequence[Task],
    completions: Sequence[str],
    *,
    url: str,
    batch_size: _Count = 32,
    concurrency: _Count = 4,
    timeout_s: _Positive = 30.0,
    retries: Annotated[int, Field(ge=0)] = 4,
    backoff_s: Annotated[float, Field(ge=0)] = 0.5,
    api_key_env: str | None = None,
) -> list[float | Missing]:
    """The scores that a server gives.

    A request is `{"items": [{"id", "prompt", "completion", "answer", "columns"}, ...]}` by POST; its answer
    `{"scores": [0.5, null, ...]}`, one for each item in order, with `"reasons"` beside it for those that are null.

    Status 408, 425, 429 and 5xx, lost connections and timeouts are tried again up to `retries` times, after
    `backoff_s` doubled each time or what the server's Retry-After asks for. `timeout_s` is for a whole try. Once a
    batch has run out of tries, the rest is tried once each: a dead server is soon told. What has no score is
    missing, with the reason. Neither proxies nor redirections are followed.

    Args: api_key_env: name of the environment variable whose value is sent as a bearer token.
    Raises: ConfigError if `url` is no http(s) address, or the variable is not set.
    """
    server = _Server(_address(url), _headers(api_key_env), timeout_s, retries, backoff_s)
    starts = range(0, len(tasks), batch_size)
    down = threading.Event()
    with ThreadPoolExecutor(concurrency) as pool:
        batches = pool.map(
            lambda at: _batch(server, tasks[at : at + batch_size], completions[at : at + batch_size], down), starts
        )
        return [score for batch in batches for score in batch]


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"http.url={url}: expected http://HOST:PORT/PATH or https://....")
    return url


def _headers(api_key_env: str | None) -> dict[str, str]:
    plain = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
    if api_key_env is None:
        return plain
    key = os.environ.get(api_key_env)
    if not key:
        raise ConfigError(f"http.api_key_env={api_key_env}: the variable is not set. Export it, or remove the option.")
    return {**plain, "Authorization": f"Bearer {key}"}


def _batch(
    server: _Server, tasks: Sequence[Task], completions: Sequence[str], down: threading.Event
) -> list[float | Missing]:
    items = [
        {"id": task.id, "prompt": task.prompt, "completion": text, "answer": task.answer, "columns": task.columns}
        for task, text in zip(tasks, completions, strict=True)
    ]
    body = json.dumps({"items": items}).encode()
    try:
        return _scores(_patiently(server, body, down), len(items))
    except _Failure as failure:
        return [Missing(failure.reason)] * len(items)


def _patiently(server: _Server, body: bytes, down: threading.Event) -> Any:
    tries = 0
    while True:
        tries += 1
        try:
            return _once(server, body)
        except _Failure as failure:
            if not failure.again:
                raise
            if tries > server.retries or down.is_set():
                down.set()
                raise _Failure(f"{failure.reason}, {tries} tries", again=False) from None
            wait = server.backoff_s * 2 ** (tries - 1) if failure.wait_s is None else failure.wait_s
            time.sleep(min(wait, _LONGEST_WAIT_S))


def _once(server: _Server, body: bytes) -> Any:
    """One try. Raises: _Failure."""
    parts = urlsplit(server.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=server.timeout_s)
    # The socket's own timeout is for each read; a server that sends a byte now and then would outlast it.
    deadline = threading.Timer(server.timeout_s, _hang_up, [connection])
    started = time.monotonic()
    deadline.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, dict(server.headers))
        response = connection.getresponse()
        text = response.read(_MOST_BYTES + 1)
        status, wait = response.status, response.getheader("Retry-After")
        if len(text) <= _MOST_BYTES and (response.length or time.monotonic() - started >= server.timeout_s):
            raise http.client.IncompleteRead(text)  # reading a part raises nothing by itself
    except (OSError, http.client.HTTPException) as error:
        late = time.monotonic() - started >= server.timeout_s
        reason = f"no answer within {server.timeout_s:g} s" if late else f"no answer: {_said(error)}"
        raise _Failure(reason, again=True) from None
    finally:
        deadline.cancel()
        connection.close()
    if status in (408, 425, 429) or status >= 500:
        raise _Failure(f"status {status}", again=True, wait_s=_seconds(wait))
    if status != 200:
        raise _Failure(f"status {status}", again=False)
    if len(text) > _MOST_BYTES:
        raise _Failure(f"an answer of more than {_MOST_BYTES} bytes", again=False)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _Failure("an answer that is no JSON", again=False) from None


def _said(error: Exception) -> str:
    """The error by its kind: messages name ports and lengths that differ from try to try."""
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__


def _hang_up(connection: http.client.HTTPConnection) -> None:
    if connection.sock is not None:
        try:
            # Not `connection.sock.shutdown`: on TLS that takes the encryption off first.
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself


def _seconds(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _scores(answer: Any, count: int) -> list[float | Missing]:
    """The scores in a server's answer. Raises: _Failure if there is not one for each item."""
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != count:
        raise _Failure(f"an answer without a list of {count} scores", again=False)
    reasons = answer.get("reasons")
    if not isinstance(reasons, list) or len(reasons) != count:
        reasons = [None] * count
    return [_score(score, reason) for score, reason in zip(scores, reasons, strict=True)]


def _score(score: Any, reason: Any) -> float | Missing:
    if score is None:
        return Missing(f"the server says: {reason}" if isinstance(reason, str) and reason else "the server gave null")
    try:
        number = math.nan if isinstance(score, bool | str) else float(score)
    except (TypeError, OverflowError):
        number = math.nan
    return number if math.isfinite(number) else Missing("the server gave no finite number")
