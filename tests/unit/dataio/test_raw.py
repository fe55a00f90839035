"""Reading tables from files and through `datasets`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpipe.dataio.raw import FileTables, HubTables
from rlpipe.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_lines_are_numbered_and_a_broken_one_is_kept_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x":\n{"x": "\u2028"}\n', encoding="utf-8")
    rows = FileTables(tmp_path).read("a")
    assert [(row.id, row.value, bool(row.problem)) for row in rows] == [
        ("a.jsonl:1", {"x": 1}, False), ("a.jsonl:2", '{"x":', True), ("a.jsonl:3", {"x": "\u2028"}, False),
    ]  # fmt: skip


def test_an_array_is_read_item_by_item(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"x": 1}, 2]), encoding="utf-8")
    assert [(row.line, row.value) for row in FileTables(tmp_path).read("a")] == [(1, {"x": 1}), (2, 2)]


@pytest.mark.parametrize("text", ["[1, ", '{"x": 1}'])
def test_a_file_that_is_no_array_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: "):
        FileTables(tmp_path).read("a")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("", encoding="utf-8")
    assert FileTables(tmp_path).read("a") == []


def test_a_local_folder_is_a_dataset_id(tmp_path: Path) -> None:
    # Files of different fields side by side, as `rows` has them.
    (tmp_path / "demonstrations.jsonl").write_text('{"prompt": "p", "response": "r"}\n', encoding="utf-8")
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "p", "answer": "1"}\n{"prompt": "q", "answer": null}\n')
    hub = HubTables(str(tmp_path))
    assert [hub.has(name) for name in ("demonstrations", "tasks", "heldout")] == [True, True, False]
    assert [row.value for row in hub.read("tasks")] == [
        {"prompt": "p", "answer": "1"},
        {"prompt": "q", "answer": None},
    ]
    assert [row.id for row in hub.read("demonstrations")] == ["demonstrations:1"]


def test_splits_of_a_dataset_are_tables(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"question": split}) + "\n", encoding="utf-8")
    assert [row.value for row in HubTables(str(tmp_path)).read("test")] == [{"question": "test"}]


def test_a_dataset_that_cannot_be_had_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.hub=.*absent"):
        HubTables(str(tmp_path / "absent")).read("train")
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "p"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="neither a split 'heldout' nor a file"):
        HubTables(str(tmp_path)).read("heldout")


def test_an_id_may_name_configuration_and_revision() -> None:
    hub = HubTables("openai/gsm8k:main@cc7b047")
    assert (hub._id, hub._config, hub._revision) == ("openai/gsm8k", "main", "cc7b047")
    with pytest.raises(DataError, match="expected ID"):
        HubTables("a:b:c")
