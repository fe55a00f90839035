"""The ways into the flow from a command line; light to import."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from rlpipe.config import load
from rlpipe.errors import RlpipeError


def run(root: Path, run_name: str) -> int:
    """Run the pipeline in the checkout or workspace `root` as a flow run called `run_name`.

    Returns: 0 when every stage is up to date, 1 when one failed, 128 + the signal's number when stopped.
    Raises: ConfigError before anything is started; RlpipeError when no Prefect API answers.
    """
    load(root)
    heed_interrupts()
    heed_termination()
    from flows import server

    try:
        with server.starting() as answered:
            # The server starts in the meantime.
            from flows.post_training import pipeline

            answered()
            return 0 if pipeline(str(root.resolve()), run_name, return_state=True).is_completed() else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as error:
        return int(error.code or 0)


def serve() -> None:
    """Offer the flow as a deployment of the running Prefect server, until interrupted.

    Its form asks for a preset, overrides and a name, all optional and without defaults: an empty form runs
    `params.yaml` as it stands.

    Raises: RlpipeError when no server is named, or it does not answer.
    """
    from flows import server

    if server.named() is None:
        raise RlpipeError(
            "PREFECT_API_URL is not set, and a deployment needs a server. Start `prefect server start` in "
            "another terminal and set PREFECT_API_URL=http://127.0.0.1:4200/api."
        )
    with server.starting() as answered:
        answered()
        from flows.post_training import post_training

        post_training.serve(name="rlpipe", description="An empty form runs params.yaml as it stands.")


def heed_interrupts() -> None:
    """A script's background job ignores SIGINT and so do its children: no stage could be interrupted."""
    if _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def heed_termination() -> None:
    """Let SIGTERM end this process in order, its server with it; during a flow run Prefect handles it."""
    if _in_main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
