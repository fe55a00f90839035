"""The tiny project in two states, and a Prefect server."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging.configuration import setup_logging

from tests.flows.tiny_project import create, prefect_server, traced


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """The entry sets the process's handlers; the tests' process wants its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def prefect_url() -> str:
    # Prefect sets logging up once a process, and so takes away the handler of the test in which it happens.
    setup_logging()
    return prefect_server()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The tiny project, before anything ran."""
    return create(tmp_path / "project")


@pytest.fixture(scope="session")
def once_finished(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.flows.tiny_flow import tiny

    root = create(tmp_path_factory.mktemp("finished") / "project")
    assert tiny(str(root), return_state=True).is_completed()
    return root


@pytest.fixture
def finished(once_finished: Path, tmp_path: Path) -> Path:
    """A copy of the tiny project after a run, its trace wiped."""
    root = tmp_path / "project"
    shutil.copytree(once_finished, root, symlinks=True)
    traced(root)
    return root
