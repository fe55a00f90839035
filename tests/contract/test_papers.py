"""docs/papers.md: every algorithm has its row."""

import re
from pathlib import Path

import pytest

from rlpipe.algos import ALGOS

PAPERS = (Path(__file__).resolve().parents[2] / "docs/papers.md").read_text()


@pytest.mark.parametrize("name", ALGOS)
def test_every_algorithm_has_a_row_with_its_source(name):
    rows = [line for line in PAPERS.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    for paper in re.findall(r"arXiv:\d+\.\d+", ALGOS[name].source):
        assert paper in rows[0]
