"""The stage `prepare`, end to end on small and on real data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.dataio import prepared
from rlpipe.dataio.chat import decode, response_ids
from rlpipe.dataio.tokenizers import load
from rlpipe.errors import ConfigError, DataError
from rlpipe.stages.base import Stage
from rlpipe.stages.prepare import run

CHECKOUT = Path(__file__).parents[2]
REALDATA = CHECKOUT / "../shared/realdata"
SMALL = ("data.arithmetic.sft_rows=40", "data.arithmetic.rl_rows=30", "data.arithmetic.heldout_rows=20")


class Memory:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        raise AssertionError("prepare has no steps")

    def summary(self, values: Mapping[str, float]) -> None:
        self.values.update(values)

    def dataset(self, name: str, path: Path) -> None:
        assert path.exists()


def prepare(root: Path, *assignments: str, preset: str | None = None) -> dict[str, int]:
    """Run the stage in `root` and return its metrics."""
    overlay = (CHECKOUT / f"presets/{preset}.yaml").read_text(encoding="utf-8") if preset else None
    params = parse(edited((CHECKOUT / "params.yaml").read_text(encoding="utf-8"), overlay, assignments))
    memory = Memory()
    run(Stage("prepare", "", root, params, memory))
    metrics = json.loads((root / "metrics/prepare.json").read_text(encoding="utf-8"))
    rows = ("rows_in", "rows_kept", "rows_quarantined")
    assert memory.values == {f"data/{name}": metrics[name] for name in rows}
    assert metrics["rows_in"] == metrics["rows_kept"] + metrics["rows_quarantined"]
    quarantined = sum(count for name, count in metrics.items() if name.startswith("quarantine/"))
    lines = (root / prepared.QUARANTINE).read_text(encoding="utf-8").splitlines()
    assert metrics["rows_quarantined"] == quarantined == len(lines)
    return metrics


def hashes(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def table(folder: Path, name: str, *rows: object) -> None:
    folder.mkdir(exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_the_default_source_gives_disjoint_splits_and_a_tokenizer(tmp_path: Path) -> None:
    metrics = prepare(tmp_path, *SMALL)
    assert (metrics["rows_in"], metrics["rows_quarantined"]) == (90, 0)
    splits = (
        prepared.read_demonstrations(tmp_path), prepared.read_tasks(tmp_path), prepared.read_heldout(tmp_path)
    )  # fmt: skip
    assert [len(rows) for rows in splits] == [40, 30, 20]
    assert len({row.prompt for rows in splits for row in rows}) == 90
    assert prepared.read_preferences(tmp_path) == []
    tokenizer = load(tmp_path / prepared.TOKENIZER)
    response = splits[0][0].response
    assert decode(tokenizer, response_ids(tokenizer, response)) == response


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path) -> None:
    bpe = ("model.scratch.tokenizer=bpe", "model.scratch.vocab_size=300")
    for name in ("one", "two"):
        prepare(tmp_path / name, *SMALL, *bpe)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    prepare(tmp_path / "other", *SMALL, *bpe, "data.seed=18")
    assert hashes(tmp_path / "other") != hashes(tmp_path / "one")


def test_a_model_on_hand_brings_its_own_tokenizer(tmp_path: Path) -> None:
    prepare(tmp_path, *SMALL, "model.name_or_path=some/model")
    assert not (tmp_path / prepared.TOKENIZER).exists()


def test_the_quarantine_file_outlives_the_failure(tmp_path: Path) -> None:
    table(
        tmp_path / "own",
        "demonstrations",
        {"prompt": "a", "response": "b"},
        "{broken",
        {"prompt": "", "response": "b"},
    )
    table(tmp_path / "own", "tasks", {"prompt": "c", "answer": "1"})
    table(tmp_path / "own", "heldout", {"prompt": "d", "answer": "1"})
    own = ("data.source=rows", "data.path=own")
    with pytest.raises(DataError, match=r"2 of 5 rows \(40.0%\) cannot be used: 1 malformed .* 1 empty"):
        prepare(tmp_path, *own)
    lines = [json.loads(line) for line in (tmp_path / prepared.QUARANTINE).read_text(encoding="utf-8").splitlines()]
    assert [(line["line"], line["reason"]) for line in lines] == [(2, "malformed"), (3, "empty")]
    assert not (tmp_path / prepared.DEMONSTRATIONS).exists()
    # Below the rate, the three good rows go on.
    assert prepare(tmp_path, *own, "data.max_quarantine_rate=0.4")["rows_kept"] == 3


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "own", "demonstrations", {"prompt": "a", "response": "b"})
    table(tmp_path / "own", "tasks")
    table(tmp_path / "own", "heldout", {"prompt": "d", "answer": "1"})
    with pytest.raises(DataError, match="no usable row is left for tasks"):
        prepare(tmp_path, "data.source=rows", "data.path=own")


def test_a_vocabulary_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.scratch\.vocab_size=16"):
        prepare(tmp_path, *SMALL, "model.scratch.vocab_size=16")


def test_the_tokenizer_has_not_seen_the_held_out_tasks(tmp_path: Path) -> None:
    table(tmp_path / "own", "demonstrations", {"prompt": "aa", "response": "bb"})
    table(tmp_path / "own", "tasks", {"prompt": "cc", "answer": "1"})
    table(tmp_path / "own", "heldout", {"prompt": "dd", "answer": "1"})
    table(tmp_path / "own", "preferences", {"prompt": "dd", "chosen": "ee", "rejected": "ff"})
    prepare(tmp_path, "data.source=rows", "data.path=own")
    known = load(tmp_path / prepared.TOKENIZER).get_vocab()
    assert {"a", "b", "c"} < set(known)
    assert not {"d", "e", "f"} & set(known)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A workspace that has the real data where the presets look for it."""
    if not REALDATA.is_dir():
        pytest.skip("../shared/realdata is not beside this checkout")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/realdata").symlink_to(REALDATA.resolve(), target_is_directory=True)
    (tmp_path / "main").mkdir()
    return tmp_path / "main"


def test_preset_gsm8k_uses_every_row(beside: Path) -> None:
    metrics = prepare(beside, preset="gsm8k")
    assert (metrics["rows_in"], metrics["rows_quarantined"]) == (8792, 0)
    assert (metrics["split/demonstrations"], metrics["split/tasks"], metrics["split/heldout"]) == (
        7473,
        7473,
        1319,
    )


def test_preset_instruct_sets_the_six_equal_pairs_aside(beside: Path) -> None:
    # 1,100 instructions and 1,100 pairs.
    metrics = prepare(beside, preset="instruct")
    assert metrics["rows_in"] == 2200
    assert metrics["quarantine/equal_pair"] == metrics["rows_quarantined"] == 6
    assert metrics["split/tasks"] + metrics["split/heldout"] == 1100
    assert metrics["split/preferences"] == 1094
