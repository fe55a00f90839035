"""`rlpipe score`: every row comes back, in order, with a score or the reason why it has none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlpipe.cli import main
from rlpipe.errors import ConfigError, DataError
from rlpipe.rewards.base import Explained
from rlpipe.scoring import _written, score_file

REPOSITORY = Path(__file__).resolve().parents[2]


def scored(tmp_path: Path, name: str, rows: list[Any], *options: str) -> list[dict[str, Any]]:
    source, target = tmp_path / "rows.jsonl", tmp_path / "out" / "scored.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    score_file(name, options, source, target, tmp_path)
    assert [path.name for path in target.parent.iterdir()] == ["scored.jsonl"], "nothing half-written is left"
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def test_columns_and_order_are_kept(tmp_path: Path) -> None:
    rows = [
        {"zebra": [1, {"a": None}], "prompt": "1+1", "completion": "#### 2", "answer": "2", "\u00e9": "\u2603"},
        {"prompt": "1+1", "completion": "#### 3", "answer": 2},
        {"prompt": "1/2", "completion": "<answer>1/2</answer>", "answer": 0.5},
        {"prompt": "?", "completion": "#### 3"},
    ]
    found = scored(tmp_path, "math_answer", rows)
    assert [{k: v for k, v in row.items() if k not in ("score", "reason")} for row in found] == rows
    assert [row["score"] for row in found] == [1.0, 0.0, 1.0, None]
    assert [row["reason"] for row in found[:3]] == ["", "", ""]
    assert found[3]["reason"] == "the task's answer '' is no number, and no expression that can be compared"
    assert list(found[0])[:2] == ["zebra", "prompt"]


@pytest.mark.parametrize(
    ("line", "reason", "kept"),
    [
        (b"{torn", "the line is no JSON", {"line": "{torn"}),
        (b"", "the line is no JSON", {"line": ""}),
        (b"[" * 100_000, "the line is no JSON", {"line": "[" * 100_000}),
        (b'{"prompt": "p", "completion": "c", "x": NaN}', "the line is no JSON",
         {"line": '{"prompt": "p", "completion": "c", "x": NaN}'}),
        (b"\xff\xfe", "the line is no UTF-8 text", {"line": "\ufffd\ufffd"}),
        (b"[1, 2]", "the line is a JSON list, not an object", {"line": [1, 2]}),
        (b'{"prompt": "p"}', "column 'completion' is missing", {"prompt": "p"}),
        (b'{"completion": "c"}', "column 'prompt' is missing", {"completion": "c"}),
        (b'{"prompt": "p", "completion": null}', "column 'completion' is NoneType, not text",
         {"prompt": "p", "completion": None}),
        (b'{"prompt": ["p"], "completion": "c"}', "column 'prompt' is list, not text",
         {"prompt": ["p"], "completion": "c"}),
        (b'{"prompt": "p", "completion": "c", "answer": true}', "column 'answer' is bool, not text",
         {"prompt": "p", "completion": "c", "answer": True}),
    ],
)  # fmt: skip
def test_a_malformed_row_has_a_reason_and_its_neighbours_have_scores(
    line: bytes, reason: str, kept: dict[str, Any], tmp_path: Path
) -> None:
    good = {"prompt": "p", "completion": "<think>a</think><answer>b</answer>"}
    found = scored(tmp_path, "format", [good, line, good])
    assert found == [
        {**good, "score": 1.0, "reason": ""},
        {**kept, "score": None, "reason": reason},
        {**good, "score": 1.0, "reason": ""},
    ]


def test_text_that_utf_8_cannot_hold_comes_through(tmp_path: Path) -> None:
    found = scored(tmp_path, "format", [b'{"prompt": "\\ud800", "completion": "c"}'])
    assert found == [{"prompt": "\ud800", "completion": "c", "score": 0.0, "reason": ""}]


def test_columns_in_the_way_keep_their_values(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c", "score": 7, "reason": "old", "input_score": 8}
    (found,) = scored(tmp_path, "format", [row])
    assert found == {
        "prompt": "p", "completion": "c", "input_input_score": 7, "input_score": 8, "input_reason": "old",
        "score": 0.0, "reason": "",
    }  # fmt: skip


def test_a_file_may_be_scored_in_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "completion": "c"}\n' * 1000, encoding="utf-8")
    summary = score_file("format", [], path, path, tmp_path)
    assert (summary.rows, summary.total, summary.missing.total()) == (1000, 0.0, 0)
    assert path.read_text(encoding="utf-8").count('"score": 0.0') == 1000


def test_options_are_set_by_name_and_checked(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "x" * n} for n in (6, 8, 11)]
    options = ("max_length=10", "cache_length=4", "unit=characters")
    assert [row["score"] for row in scored(tmp_path, "length", rows, *options)] == [0.0, -0.5, -1.0]
    with pytest.raises(ConfigError, match=r"--reward length\.cache_length: missing"):
        scored(tmp_path, "length", rows, "max_length=10")
    with pytest.raises(ConfigError, match=r"--reward length\.max_length='ten': Input should be a valid integer"):
        scored(tmp_path, "length", rows, "max_length=ten", "cache_length=4")
    with pytest.raises(ConfigError, match="--set unit: expected KEY=VALUE"):
        scored(tmp_path, "length", rows, "unit")


def test_a_function_of_ones_own_sees_every_other_column(tmp_path: Path) -> None:
    source = "def f(tasks, completions, *, at: int):\n    return [task.columns['marks'][at] for task in tasks]\n"
    (tmp_path / "own_scoring_module.py").write_text(source, encoding="utf-8")
    rows = [{"prompt": "p", "completion": "c", "marks": [1, 2]}, {"prompt": "p", "completion": "c"}]
    found = scored(tmp_path, "own_scoring_module:f", rows, "at=1")
    assert [(row["score"], row["reason"]) for row in found] == [(2.0, ""), (None, "KeyError: 'marks'")]


def test_a_score_may_say_how_it_came_about() -> None:
    assert json.loads(_written({}, Explained(0.0, "test 2 failed"))) == {"score": 0.0, "reason": "test 2 failed"}
    assert Explained(0.5, "half") + 1 == 1.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("math_anser", "--reward math_anser: no such verifier. Did you mean 'math_answer'?"),
        ("judge", "--reward judge: a stage makes it"),
        ("no_such_module_at_all:f", "module no_such_module_at_all cannot be imported"),
    ],
)
def test_an_unknown_reward_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        scored(tmp_path, name, [])
    assert said in str(error.value)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--input .*absent\.jsonl: no such file"):
        score_file("format", [], tmp_path / "absent.jsonl", tmp_path / "out.jsonl", tmp_path)
    (tmp_path / "rows.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        score_file("format", [], tmp_path / "rows.jsonl", tmp_path / "folder", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "rows.jsonl"]


def test_a_component_that_stops_leaves_the_old_output(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    source.write_text('{"prompt": "p", "completion": "c"}\n', encoding="utf-8")
    target.write_text("old", encoding="utf-8")
    (tmp_path / "own_stopping_module.py").write_text("def f(tasks, completions):\n    raise SystemExit\n")
    with pytest.raises(SystemExit):
        score_file("own_stopping_module:f", [], source, target, tmp_path)
    assert target.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []


def test_the_command_prints_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "p", "completion": "#### 2", "answer": answer} for answer in ("2", "3", "2", "two", "red")]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "torn\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="0"):
        main(["score", "--reward", "math_answer", "--input", str(source), "--output", str(tmp_path / "s.jsonl")])
    assert capsys.readouterr().out == (
        "6 rows: 3 scored, mean 0.666667; 3 without a score\n"
        "  1 × the task's answer 'two' is no number, and no expression that can be compared; "
        "1 × the task's answer 'red' is no number, and no expression that can be compared; 1 × the line is no JSON\n"
    )


def test_verifiers_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "completion": "#### 2", "answer": "2"}\n', encoding="utf-8")
    code = (
        "import sys\nfrom pathlib import Path\nfrom rlpipe.scoring import score_file\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "print(score_file('math_answer', [], folder / 'rows.jsonl', folder / 'scored.jsonl', folder))\n"
        "print(sorted({'torch', 'transformers', 'sympy', 'mlflow', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 rows: 1 scored, mean 1; 0 without a score", "[]"]


def test_help_answers_at_once() -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "rlpipe", "score", "--help"], cwd=REPOSITORY, capture_output=True, check=True)
    assert time.monotonic() - started < 1
