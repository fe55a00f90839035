"""One stage of `dvc.yaml` as a Prefect task run. DVC decides whether the stage's command runs."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from rlpipe.errors import StageError
from tasks.process import Children

RAN, RESTORED, UP_TO_DATE = "Ran", "Restored", "UpToDate"
FAILED, SKIPPED, CANCELLED = "Failed", "Skipped", "Cancelled"

# What `dvc repro` prints before anything else about a stage.
_VERDICTS = {
    "Stage '{}' didn't change, skipping": UP_TO_DATE,
    "'{}' didn't change, skipping": UP_TO_DATE,
    "Stage '{}' is cached - skipping run, checking out outputs": RESTORED,
    "Running stage '{}':": RAN,
}
# What it prints about git after a stage; the stage's author knows.
_ADVICE = (
    "To track the changes with git", "\tgit add ", "To enable auto staging", "\tdvc config ",
    "Use `dvc push`",
)  # fmt: skip
_COMMAND = ("Running stage ", "> ")
_TAIL_LINES = 12

# DVC caches; a second cache in Prefect could only disagree with it.
_OPTIONS: dict[str, Any] = {
    "name": "stage",
    "task_run_name": "{address}",
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@dataclass(frozen=True)
class Outcome:
    """How a stage ended. `error` is empty unless it failed; its first line then says what went wrong."""

    address: str
    state: str
    seconds: float
    error: str = field(default="", repr=False)


@task(**_OPTIONS)
def run_stage(address: str, root: Path, environ: Mapping[str, str], children: Children) -> State[Outcome]:
    """Let DVC bring one stage up to date, its upstreams being so; the log goes to the run's logger."""
    logger = get_run_logger()
    outcome = repro(address, root, environ, children, on_line=logger.info)
    if outcome.state == FAILED:
        return Failed(message=outcome.error, data=outcome)
    if outcome.state == CANCELLED:
        return Cancelled(message="the run was stopped.", data=outcome)
    return Completed(name=outcome.state, message=f"{outcome.seconds:.1f} s", data=outcome)


@task(**_OPTIONS)
def up_to_date(address: str) -> State[Outcome]:
    """A stage that DVC's status found unchanged, below unchanged stages: nothing to start."""
    return Completed(name=UP_TO_DATE, data=Outcome(address, UP_TO_DATE, 0.0))


@task(**_OPTIONS)
def skip(address: str, because: Sequence[str]) -> State[Outcome]:
    """A stage that cannot run because of the failed or skipped stages `because`.

    The state's type is Failed, the only unfinished one that Prefect lets a later task depend on.
    """
    message = f"not run: {', '.join(because)} did not finish."
    return Failed(name=SKIPPED, message=message, data=Outcome(address, SKIPPED, 0.0))


def repro(
    address: str,
    root: Path,
    environ: Mapping[str, str],
    children: Children,
    *,
    on_line: Callable[[str], None],
) -> Outcome:
    """Run `dvc repro` for one stage in the workspace `root`, with `environ` added to the environment."""
    lines: list[str] = []

    def hear(line: str) -> None:
        if line.strip() and not line.startswith(_ADVICE):
            lines.append(line)
            on_line(line)

    log = root / ".rlpipe" / "logs" / f"{address.replace('/', '_')}.log"
    started = time.monotonic()
    try:
        code = children.run(
            # -P: the workspace's own folders must not shadow a module that DVC imports.
            [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", "--single-item", address],
            cwd=root,
            environ={**os.environ, **environ, "PYTHONUNBUFFERED": "1"},
            log=log,
            on_line=hear,
        )
    except StageError:
        return Outcome(address, CANCELLED, 0.0)
    seconds = time.monotonic() - started
    if code == 0:
        return Outcome(address, _verdict(address, lines), seconds)
    if children.stopping:
        return Outcome(address, CANCELLED, seconds)
    return Outcome(address, FAILED, seconds, error=_explained(lines, code, log.relative_to(root)))


def _verdict(address: str, lines: Sequence[str]) -> str:
    """DVC's verdict; the first one counts, because the command's own output comes after it."""
    verdicts = {text.format(address): state for text, state in _VERDICTS.items()}
    return next((verdicts[line] for line in lines if line in verdicts), RAN)


def _explained(lines: Sequence[str], code: int, log: Path) -> str:
    """The stage's own last words, then the end of its log."""
    by_dvc = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: failed to reproduce")]
    own = [line for line in lines if not line.startswith((*_COMMAND, "ERROR: failed to reproduce"))]
    status = re.search(r"exited with (-?\d+)", by_dvc[-1]) if by_dvc else None
    exit_code = int(status.group(1)) if status else code
    if exit_code in (-9, 137):
        head = "killed by SIGKILL: the machine may have run out of memory."
    else:
        head = next(iter([*own[-1:], *by_dvc[-1:]]), f"exited with {exit_code} and without a word.")
    return "\n".join([head.strip(), "", f"The end of {log}:", *lines[-_TAIL_LINES:]])
