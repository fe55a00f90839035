"""docs/add_an_algorithm.md, followed literally in a copy of the house."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```\w+ (file|line)=(\S+)(?: before=\"([^\n]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAME = "median_reinforce"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of what is needed, changed as the page says. Returns: its root and the paths the page touches."""
    house = tmp_path_factory.mktemp("house")
    for folder in ("rlpipe", "tests", "docs", "flows", "tasks"):
        shutil.copytree(ROOT / folder, house / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("params.yaml", "dvc.yaml", "pyproject.toml"):
        shutil.copy(ROOT / file, house / file)
    touched = []
    for kind, path, before, text in BLOCK.findall((ROOT / "docs/add_an_algorithm.md").read_text()):
        target = house / path
        touched.append(path)
        if kind == "file":
            assert not target.exists()
            target.write_text(text)
        else:
            old, anchor = target.read_text(), before.replace('\\"', '"')
            assert old.count(anchor) == 1, f"{path}: {anchor!r} stands there {old.count(anchor)} times"
            target.write_text(old.replace(anchor, text + anchor))
    return house, touched


def _run(house, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=house, capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1", "HOME": str(house)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_touches_a_file_the_table_a_test_and_docs_alone(house):
    assert set(house[1]) == {
        "docs/papers.md",
        f"rlpipe/algos/{NAME}.py",
        "rlpipe/algos/__init__.py",
        f"tests/unit/algos/test_{NAME}.py",
    }


def test_the_new_algorithm_passes_its_own_test_and_all_that_hold_for_every_algorithm(house):
    report = _run(
        house[0], "-m", "pytest", "-k", NAME, "-o", "addopts=", "-v", "-p", "no:cacheprovider",
        f"tests/unit/algos/test_{NAME}.py", "tests/contract/test_algos.py", "tests/contract/test_papers.py",
        "tests/contract/test_stage_deps.py", "tests/unit/training/test_resume.py",
    )  # fmt: skip
    assert "the_median_of_the_group" in report
    assert f"test_resumed_equals_never_interrupted[{NAME}]" in report
    assert re.search(rf"test_any_split_into_micro_batches_gives_the_same_update\[.*{NAME}\] PASSED", report)
    assert f"test_every_algorithm_has_a_row_with_its_source[{NAME}]" in report


def test_it_shows_in_the_list_and_finds_the_bandits_optimum(house):
    assert "group ≥ 2" in next(line for line in _run(house[0], "-m", "rlpipe", "algos").splitlines() if NAME in line)
    assert f"algorithm: {NAME}" in _run(house[0], "-m", "rlpipe", "algos", NAME)
    assert "total variation" in _run(house[0], "-m", "rlpipe", "bandit", "--algo", NAME).lower()
