"""What a run publishes in Prefect: a table of its stages, and the report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.stage import Outcome

# The number that says most about a stage; the first that a metric file has is shown, else its first number.
_KEY_METRICS = ("pass_at_1", "heldout_accuracy", "reward/gold_mean", "sft/loss", "data/pairs_train", "rows_kept")


def publish(root: Path, outcomes: Iterable[Outcome], metrics: Mapping[str, Sequence[str]]) -> None:
    """Create the run's artifacts: `stages`, and `report` where the workspace `root` has one."""
    table = [
        {
            "stage": outcome.address,
            "state": outcome.state,
            "seconds": round(outcome.seconds, 1),
            "key metric": key_metric(root, metrics.get(outcome.address, ())),
        }
        for outcome in outcomes
    ]
    create_table_artifact(key="stages", table=table, description=f"Stages of {root.name}")
    report = root / "reports" / "report.md"
    if report.is_file():
        create_markdown_artifact(key="report", markdown=report.read_text(encoding="utf-8"))


def key_metric(root: Path, files: Sequence[str]) -> str:
    """The most telling number of a stage's metric files, such as `pass_at_1 0.713`; or empty."""
    numbers: dict[str, float] = {}
    for file in files:
        path = root / file
        if path.suffix == ".json" and path.is_file():
            numbers.update(_numbers(json.loads(path.read_text(encoding="utf-8"))))
    name = next((name for name in [*_KEY_METRICS, *numbers] if name in numbers), None)
    return "" if name is None else f"{name} {numbers[name]:.4g}"


def _numbers(content: object) -> dict[str, float]:
    if not isinstance(content, Mapping):
        return {}
    return {
        str(name): value
        for name, value in content.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
