"""Reading and writing rows, tables and numbers: sorted, newline-terminated, the same bytes every time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from rlpipe.errors import DataError

Row = TypeVar("Row")


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write records or mappings as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            plain = row if isinstance(row, Mapping) else asdict(row)
            file.write(json.dumps(plain, ensure_ascii=False, sort_keys=True) + "\n")


def read_rows(path: Path, record: type[Row]) -> list[Row]:
    """Read JSON lines written by `write_rows` back into records.

    Raises: DataError naming file, line and field where a row does not fit the record.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file. Run the stage that writes it: `dvc repro` does.")
    names = {field.name for field in fields(record)}  # type: ignore[arg-type]
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            row = json.loads(line)
            if set(row) != names:
                raise DataError(f"{path}:{number}: fields {sorted(row)}, expected {sorted(names)}.")
            rows.append(record(**row))
    return rows


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write numbers or mappings of them as sorted JSON, floats rounded to 6 significant digits for readable diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(metrics), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_table(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one CSV line a row; columns are the union of the rows' keys, in order of appearance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
