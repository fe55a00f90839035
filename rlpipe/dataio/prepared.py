"""Where the data stages keep their files, and how the later stages read them."""

from __future__ import annotations

from pathlib import Path

from rlpipe.dataio.files import read_rows
from rlpipe.errors import DataError
from rlpipe.types import Demonstration, Preference, Task

PREPARED = "data/prepared"
SHOWN = "demonstrations.jsonl"  # in data/prepared and data/constitution
DEMONSTRATIONS = f"{PREPARED}/{SHOWN}"
TASKS = f"{PREPARED}/tasks.jsonl"  # prompts that a policy samples on
HELDOUT = f"{PREPARED}/heldout.jsonl"  # tasks of the evaluation; nothing learns from them
PREFERENCES = f"{PREPARED}/preferences.jsonl"  # pairs that came with the data; may be empty
QUARANTINE = f"{PREPARED}/quarantine.jsonl"
TOKENIZER = f"{PREPARED}/tokenizer"  # a folder, only when model.name_or_path is null

PAIRS = "data/pairs"  # a folder for each section of `pairs`
TRAIN, HELDOUT_PART = "train.jsonl", "heldout.jsonl"


def read_demonstrations(root: Path) -> list[Demonstration]:
    """Raises: DataError if `prepare` has not run."""
    return read_rows(root / DEMONSTRATIONS, Demonstration)


def read_demonstrations_in(folder: Path) -> list[Demonstration]:
    """Of one folder, such as data/constitution. Raises: DataError if its stage has not run, or made none."""
    rows = read_rows(folder / SHOWN, Demonstration)
    if not rows:
        raise DataError(
            f"{folder / SHOWN}: it holds no demonstration. Look at the metrics of the stage that writes it."
        )
    return rows


def read_tasks(root: Path) -> list[Task]:
    """Tasks to learn from. Raises: DataError if `prepare` has not run."""
    return read_rows(root / TASKS, Task)


def read_heldout(root: Path) -> list[Task]:
    """Tasks to evaluate on. Raises: DataError if `prepare` has not run."""
    return read_rows(root / HELDOUT, Task)


def read_preferences(root: Path) -> list[Preference]:
    """Pairs that came with the data, perhaps none. Raises: DataError if `prepare` has not run."""
    return read_rows(root / PREFERENCES, Preference)


def read_train_pairs(folder: Path) -> list[Preference]:
    """Of one set, such as data/pairs/gold. Raises: DataError if its `pairs` has not run."""
    return read_rows(folder / TRAIN, Preference)


def read_heldout_pairs(folder: Path) -> list[Preference]:
    """Of one set. Raises: DataError if its `pairs` has not run."""
    return read_rows(folder / HELDOUT_PART, Preference)
