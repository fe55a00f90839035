"""The table of metrics: complete, legal, and equal to its document."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rlpipe.errors import TrackingError
from rlpipe.tracking import keys

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name", ["reward/score_mean", "reward/math_answer_mean", "eval/math_answer/pass_at_1", "time/rollout_s"]
)
def test_names_of_the_table_pass(name: str) -> None:
    keys.check(name)


@pytest.mark.parametrize("name", ["Reward/score_mean", "reward/score mean", "kl/ref-k1", "", "kl@ref"])
def test_names_with_other_characters_are_refused(name: str) -> None:
    with pytest.raises(TrackingError, match=r"only \[a-z0-9_./\]"):
        keys.check(name)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(TrackingError, match=r"'kl/ref_k2_token'.*Did you mean 'kl/ref_k\d_token'"):
        keys.check("kl/ref_k2_token")


def test_a_pattern_does_not_reach_over_a_slash() -> None:
    with pytest.raises(TrackingError):
        keys.check("eval/a/b/pass_at_1")


def test_every_row_is_complete_and_stands_once_in_the_document() -> None:
    document = keys.document()
    for key in keys.KEYS:
        assert all((key.formula, key.unit, key.healthy, key.writer)), key.name
        assert document.count(f"| `{key.name}` |") == 1


def test_the_document_is_the_table() -> None:
    assert keys.DOCUMENT.read_text(encoding="utf-8") == keys.document()


def test_every_metric_named_in_the_code_is_in_the_table() -> None:
    """Any string in the code that looks like a metric of a known section must be one."""
    sections = {key.name.partition("/")[0] for key in keys.KEYS} - {"data"}  # data/ is a folder too
    shape = re.compile(rf"(?:{'|'.join(sorted(sections))})/[a-z0-9_.]+")
    found: set[str] = set()
    for room in ("ops", "algos", "training", "stages"):
        for path in (ROOT / "rlpipe" / room).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
            found |= {text for text in texts if shape.fullmatch(text)}
    assert "kl/ref_seq_sum" in found
    for name in sorted(found):
        keys.check(name)


def test_no_row_lets_a_whole_section_through() -> None:
    """`section/<part>` would cover every misspelling in its section."""
    assert not [key.name for key in keys.KEYS if re.fullmatch(r"[a-z_]+/<[a-z]+>", key.name)]
