"""Settings and small tables for the tests of this room."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlpipe.config.schema import Arithmetic, Data
from rlpipe.dataio.raw import FileTables

REALDATA = Path(__file__).parents[3] / "../shared/realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real data beside the checkout."""
    if not REALDATA.is_dir():
        pytest.skip("../shared/realdata is not beside this checkout")
    return REALDATA


@pytest.fixture
def data() -> Data:
    """A `data` section: two operands up to 5, half of them shown wrong, a quarter of the prompts held out."""
    chains = Arithmetic(
        operands=2, max_operand=5, sft_rows=20, rl_rows=10, heldout_rows=8, short_rate=0.0, slip_rate=0.5
    )
    return Data(
        seed=0,
        source="rows",
        path="data/raw",
        hub=None,
        max_quarantine_rate=0.01,
        heldout_fraction=0.25,
        arithmetic=chains,
    )


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., FileTables]:
    """Write each table as JSON lines (a string is written as it is) and hand back the folder."""

    def write(**rows: list[Any]) -> FileTables:
        for name, items in rows.items():
            lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
            path = tmp_path / f"{name.replace('_', '-')}.jsonl"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return FileTables(tmp_path)

    return write
