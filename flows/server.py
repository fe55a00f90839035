"""The Prefect API of a run: the server that the user has named, or a temporary one."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, get_current_settings, temporary_settings

from rlpipe.errors import RlpipeError

_START_SECONDS = 180.0  # a slow machine needs a minute to create the database
_STOP_SECONDS = 10.0


def named() -> str | None:
    """The API of the server that the user has named; None when a run brings its own."""
    return get_current_settings().api.url


@contextmanager
def starting() -> Iterator[Callable[[], None]]:
    """A Prefect API for the flow runs inside. Yields a function that waits until it answers.

    Prefect can start a temporary server by itself, but only after importing the whole server into the flow's
    own process; here it starts while the flow is still being imported.

    Raises: RlpipeError, from the function, when the API does not answer.
    """
    url = named()
    if url is not None:
        yield lambda: _check(url)
        return
    home = get_current_settings().home
    home.mkdir(parents=True, exist_ok=True)
    # One at a time: the servers of a checkout share a database, and two that create it at once break it.
    lock = FileLock(home / "server.lock")
    lock.acquire()
    try:
        port = _free_port()
        server = _start(port, home / "server.log")

        def wait() -> None:
            _await(server, f"http://127.0.0.1:{port}/api", home / "server.log")
            lock.release()

        # It has no pages to link to.
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api", PREFECT_UI_URL: ""}):
            yield wait
    finally:
        lock.release()


def _start(port: int, log: Path) -> subprocess.Popen[bytes]:
    """What Prefect runs for a temporary server, in a session of its own: Ctrl-C is for the flow to handle."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    environ = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    with log.open("wb") as sink:
        server = subprocess.Popen(
            [*command, *options],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # At exit, and after Prefect's own threads, which then still send what they have queued.
    atexit.register(_stop, server)
    return server


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _await(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise RlpipeError(f"Prefect's temporary server did not start; its log is {log}. {' '.join(tail)}")


def _check(url: str) -> None:
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise RlpipeError(
            f"PREFECT_API_URL={url}: no server answers there ({problem!r}). Start `prefect server start`, or "
            "unset it to run with a temporary server."
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
