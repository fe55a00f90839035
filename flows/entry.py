"""The ways into the flows from a command line; light to import."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rlpipe.config import load
from rlpipe.errors import RlpipeError

BAKEOFF_SEEDS = 3
BAKEOFF_THRESHOLD = 0.6


def run(root: Path, run_name: str) -> int:
    """Run the pipeline in the checkout or workspace `root` as a flow run called `run_name`.

    Returns: 0 when every stage is up to date, 1 when one failed, 128 + the signal's number when stopped.
    Raises: ConfigError before anything is started; RlpipeError when no Prefect API answers.
    """
    load(root)

    def start() -> bool:
        from flows.post_training import pipeline

        return pipeline(str(root.resolve()), run_name, return_state=True).is_completed()

    return _in_prefect(start)


def bakeoff(checkout: Path, name: str, seeds: list[int], threshold: float) -> int:
    """Run the workspaces of the bakeoff `name` and compare them, as a flow run with a subflow for each seed.

    Returns and raises: as `run` does.
    """

    def start() -> bool:
        from flows.bakeoff import compare

        return compare(str(checkout.resolve()), name, seeds, threshold, return_state=True).is_completed()

    return _in_prefect(start)


def serve() -> None:
    """Offer the flows as deployments of the running Prefect server, until interrupted.

    Their forms ask for a preset, overrides, a name and, of a bakeoff, algorithms and seeds, all optional and
    without defaults: an empty form runs `params.yaml` as it stands.

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
        from flows import deployments

        deployments.offer()


def _in_prefect(start: Callable[[], bool]) -> int:
    """The exit code of the flow run that `start` starts once a Prefect API answers. Its imports come meanwhile."""
    heed_interrupts()
    heed_termination()
    from flows import server

    try:
        with server.starting() as answered:
            import flows.post_training  # noqa: F401  (what takes longest, while the server starts)

            answered()
            return 0 if start() else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as error:
        return int(error.code or 0)


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
