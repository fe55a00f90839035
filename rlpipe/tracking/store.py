"""Open the MLflow store that `tracking.uri` names, safely from several processes at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from rlpipe.config import Params
from rlpipe.environment import main_checkout
from rlpipe.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
# What mlflow must find before it is imported. By default it waits minutes for a server that is down.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",  # a trace is there when its call returns, or the run says why not
}


@dataclass(frozen=True)
class Store:
    """An open store and the experiment that runs go to."""

    client: MlflowClient
    experiment_id: str


def open_store(root: Path, params: Params) -> Store:
    """Open the store and the experiment, making either where it is missing.

    Raises: TrackingError if that fails: no compute is spent on a run that nobody will remember.
    """
    uri = absolute(root, params.tracking.uri)
    # Where a file store keeps artifacts; a server decides for itself.
    artifacts = (main_checkout(root) / "mlartifacts").as_uri() if uri.startswith(_SQLITE) else None
    with usable(params):
        client = _client(uri, artifacts)
        return Store(client, _experiment(client, params.tracking.experiment, artifacts))


@contextmanager
def usable(params: Params) -> Iterator[None]:
    """Raises: TrackingError where the store fails inside the block."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:  # mlflow lets its database's, its server's and its own errors through
        uri = params.tracking.uri
        raise TrackingError(
            f"tracking.uri={uri}: the MLflow store does not open: {_first_line(error)} Start the server "
            f"or mend the address; for a database of an older MLflow, run `mlflow db upgrade {uri}`."
        ) from error


def absolute(root: Path, uri: str) -> str:
    """`uri` with a relative sqlite path inside the main checkout, so that every workspace shares one store.

    Raises: TrackingError if the URI is a folder, which MLflow no longer keeps up.
    """
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{main_checkout(root) / uri.removeprefix(_SQLITE)}"
    if "://" not in uri or uri.startswith("file:"):
        raise TrackingError(
            f"tracking.uri={uri}: a folder is no store for parallel stages. "
            "Set sqlite:///mlflow.db or a server's address."
        )
    return uri


def _client(uri: str, artifacts: str | None) -> MlflowClient:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Any part of mlflow imports the whole (about 3 seconds on a slow core); the fluent API costs no more.
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if artifacts:
        _create_database(Path(uri.removeprefix(_SQLITE)), artifacts)
    return MlflowClient(tracking_uri=uri)


def _create_database(path: Path, artifacts: str) -> None:
    """Make a complete database, or leave the one that is there.

    MLflow creates its tables in many transactions: a second process that opens the file meanwhile, or a
    kill, leaves a database that never opens again. So it is made under a lock, beside, and moved into
    place when whole.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        # Also makes MLflow's default experiment, which two processes would make twice.
        SqlAlchemyStore(f"{_SQLITE}{fresh}", artifacts).engine.dispose()
        fresh.replace(path)


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """The experiment's id; of several processes that miss it, one makes it."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise ValueError(f"the experiment {name!r} is deleted. Restore it, or set tracking.experiment to a new name.")
    return str(found.experiment_id)


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return line if line.endswith(".") else f"{line}."
