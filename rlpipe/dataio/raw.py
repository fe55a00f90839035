"""Raw rows as they stand in the input, before anything is believed about them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from rlpipe.errors import DataError

# owner/name, a local folder, each with an optional :config and @revision behind it.
_HUB = re.compile(r"(?P<id>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<revision>[^:@]+))?")


@dataclass(frozen=True)
class RawRow:
    """One row of input: its file (or split), its 1-based line (item, in a JSON array), its value as read.

    `problem` says why the line could not be read at all; `value` is then the line's text.
    """

    source: str
    line: int
    value: Any
    problem: str = ""

    @property
    def id(self) -> str:
        """The row's address, unique within a source."""
        return f"{self.source}:{self.line}"


class Tables(Protocol):
    """Where a source's rows come from: a table is a file or a dataset's split, named without its suffix."""

    def has(self, name: str) -> bool:
        """Whether the table exists."""

    def read(self, name: str) -> list[RawRow]:
        """All rows of the table. Raises: DataError if it does not exist or cannot be opened."""


class FileTables:
    """Tables are files in a folder: `NAME.jsonl` (an object a line) or `NAME.json` (an array of objects)."""

    def __init__(self, folder: Path, key: str = "data.path") -> None:
        self._folder = folder
        self._key = key

    def has(self, name: str) -> bool:
        return self._file(name) is not None

    def read(self, name: str) -> list[RawRow]:
        path = self._file(name)
        if path is None:
            raise DataError(
                f"{self._key}={self._folder}: holds no {name}.jsonl or {name}.json. "
                f"Put the file there, or set {self._key} to the folder that has it."
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: no UTF-8 text ({error}). Convert the file to UTF-8.") from None
        return _from_array(path.name, text) if path.suffix == ".json" else _from_lines(path.name, text)

    def _file(self, name: str) -> Path | None:
        paths = (self._folder / f"{name}{suffix}" for suffix in (".jsonl", ".json"))
        return next((path for path in paths if path.is_file()), None)


class HubTables:
    """Tables of `datasets.load_dataset`: the split of that name, or else the JSON file of that name.

    `hub` is a dataset id or a local folder, with an optional configuration and revision behind it, such as
    `openai/gsm8k:main@cc7b047`. A revision keeps a dataset that its owner changes from changing the results.
    """

    def __init__(self, hub: str) -> None:
        match = _HUB.fullmatch(hub)
        if match is None:
            raise DataError(f"data.hub={hub}: expected ID, ID:CONFIG or ID:CONFIG@REVISION.")
        self._hub = hub
        self._id, self._config, self._revision = match["id"], match["config"], match["revision"]

    def has(self, name: str) -> bool:
        return name in self._splits or self._file(name) is not None

    def read(self, name: str) -> list[RawRow]:
        from datasets import load_dataset

        if name in self._splits:
            wanted: dict[str, Any] = {"name": self._config, "split": name}
        elif file := self._file(name):
            wanted = {"data_files": {"train": file}, "split": "train"}
        else:
            raise DataError(
                f"data.hub={self._hub}: has neither a split {name!r} nor a file {name}.jsonl or "
                f"{name}.json. Name a dataset with the files or splits of data.source."
            )
        with _HubErrors(self._hub):
            rows = load_dataset(self._id, revision=self._revision, **wanted)
        return [RawRow(name, number, _plain(row)) for number, row in enumerate(rows, start=1)]

    @cached_property
    def _splits(self) -> list[str]:
        from datasets import get_dataset_split_names

        with _HubErrors(self._hub):
            return list(get_dataset_split_names(self._id, self._config, revision=self._revision))

    def _file(self, name: str) -> str | None:
        from huggingface_hub import HfApi

        if Path(self._id).is_dir():
            present = {path.name for path in Path(self._id).iterdir()}
        else:
            with _HubErrors(self._hub):
                present = set(HfApi().list_repo_files(self._id, repo_type="dataset", revision=self._revision))
        return next((file for file in (f"{name}.jsonl", f"{name}.json") if file in present), None)


class _HubErrors:
    """Turns whatever the hub libraries raise (a dozen unrelated types) into a DataError with the id."""

    def __init__(self, hub: str) -> None:
        self._hub = hub

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            raise DataError(
                f"data.hub={self._hub}: cannot be loaded: {error} "
                "Check the id and the network, or set data.hub to null and use data.path."
            ) from error


def _plain(row: Any) -> Any:
    """The row as JSON values: dates, images and the like become text, so that any row can be quarantined."""
    return json.loads(json.dumps(row, default=str))


def _from_lines(source: str, text: str) -> list[RawRow]:
    rows: list[RawRow] = []
    # Only "\n" separates rows: str.splitlines would also cut at U+2028, which JSON strings may hold bare.
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(RawRow(source, number, json.loads(line)))
        except ValueError as error:
            rows.append(RawRow(source, number, line, f"no JSON: {error}"))
    return rows


def _from_array(source: str, text: str) -> list[RawRow]:
    try:
        items = json.loads(text)
    except ValueError as error:
        raise DataError(f"{source}: no JSON: {error}. Mend the file, or write one object a line as .jsonl.") from None
    if not isinstance(items, list):
        raise DataError(f"{source}: expected one JSON array of objects.")
    return [RawRow(source, number, item) for number, item in enumerate(items, start=1)]
