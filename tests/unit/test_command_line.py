"""What the command line refuses before anything heavy is imported, and what it prints of algorithms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlpipe.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", ["run", "bakeoff"])
def test_an_empty_list_of_algorithms_is_refused_and_not_taken_for_none(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([command, "--algos", " ,"])
    assert "name at least one algorithm" in capsys.readouterr().err


def test_algos_lists_all_or_shows_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit, match="0"):
        main(["algos"])
    assert "conservative_ppo" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["algos", "dapo"])
    assert "  dapo:\n    algorithm: dapo\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["algos", "dap"])
    assert "Did you mean 'dapo'" in capsys.readouterr().err


def test_a_reader_who_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from rlpipe.cli import main; main(['algos'])"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rlpipe.cli import main\n"
        "try:\n    main(['bakeoff', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'prefect', 'mlflow', 'dvc', 'matplotlib', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
