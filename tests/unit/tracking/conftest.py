"""A tiny project with a real MLflow database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlpipe.config import Params, load
from rlpipe.tracking.store import Store, open_store

ROOT = Path(__file__).parents[3]

DVC_YAML = """
stages:
  sft:
    cmd: none
    params: [seed, sft.optim]
    outs: [models/sft]
    metrics: [metrics/sft.json]
"""


@pytest.fixture
def params() -> Params:
    """The parameters of the checkout; the default store is `mlflow.db` inside the project."""
    return load(ROOT)


@pytest.fixture
def with_uri(params: Params) -> Callable[[str], Params]:
    """The parameters with another `tracking.uri`."""
    return lambda uri: params.model_copy(update={"tracking": params.tracking.model_copy(update={"uri": uri})})


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database, made once: making one takes MLflow seconds."""
    root = tmp_path_factory.mktemp("store")
    open_store(root, load(ROOT))
    return root / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, database: Path) -> Path:
    """A project of one stage, `sft`, whose outputs are there."""
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    (tmp_path / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (tmp_path / "params.yaml").write_text("seed: 17\n", encoding="utf-8")
    (tmp_path / "models/sft").mkdir(parents=True)
    (tmp_path / "models/sft/weights").write_text("w")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/sft.json").write_text("{}")
    return tmp_path


@pytest.fixture
def runs(project: Path, params: Params) -> Callable[..., list[Any]]:
    """Every run of the project's store that has the given tags, oldest first."""
    store: Store = open_store(project, params)

    def search(**tags: str) -> list[Any]:
        filters = " and ".join(f"tags.`rlpipe.{name}` = '{value}'" for name, value in tags.items())
        return list(store.client.search_runs([store.experiment_id], filters, order_by=["start_time ASC"]))

    return search
