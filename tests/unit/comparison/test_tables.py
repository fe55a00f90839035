"""The comparison as text, CSV, metrics and pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from rlpipe.comparison import page
from rlpipe.comparison.collect import Trials
from rlpipe.comparison.plots import mean_curve, spread
from rlpipe.comparison.statistics import verdicts
from rlpipe.comparison.write import write
from rlpipe.tracking import keys


def line(text: str, algorithm: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {algorithm}")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_page_has_a_row_an_algorithm(trials: Trials) -> None:
    text = page.markdown(trials, verdicts(trials, 0.35), 0.35)
    assert line(text, "grpo") == [
        "grpo", "65.0 [1.5, 128.5]", "+33.0 [−5.1, +71.1]", "600 (1 of 2 seeds)", "7.1", "0.0", "2.50", "12", "1.50",
        "700",
    ]  # fmt: skip
    assert line(text, "dpo")[:2] == ["dpo (1 of 2 seeds failed)", "50.0"]
    assert line(text, "dpo")[-3] == "–"  # its seconds
    assert line(text, "ppo") == ["ppo", "failed", *["–"] * 8]
    assert line(text, "sft")[2:4] == ["–", "–"]
    assert "2 seeds (1, 2) from one SFT model, 700 generated tokens each; threshold 35%" in text
    never = page.markdown(trials, verdicts(trials, 0.9), 0.9)
    assert line(never, "grpo")[3] == "never"


def test_the_tables_hold_every_number(trials: Trials) -> None:
    rows = {row["algorithm"]: row for row in csv.DictReader(io.StringIO(page.table(verdicts(trials, 0.35))))}
    assert float(rows["grpo"]["accuracy"]) == pytest.approx(0.65)
    assert (rows["grpo"]["seeds_reached"], rows["ppo"]["accuracy"]) == ("1", "")
    seeds = list(csv.DictReader(io.StringIO(page.seeds_table(trials))))
    assert [(row["algorithm"], row["seed"]) for row in seeds][-2:] == [("grpo", "2"), ("dpo", "1")]


def test_mlflow_gets_names_that_it_knows_and_only_what_there_is_to_say(trials: Trials) -> None:
    metrics = page.metrics(verdicts(trials, 0.35))
    for name in metrics:
        keys.check(name)
    assert metrics["bakeoff/grpo/seconds"] == 12
    assert metrics["bakeoff/ppo/seeds"] == 0
    assert "bakeoff/ppo/accuracy" not in metrics
    assert "bakeoff/dpo/seconds" not in metrics


def test_labels_are_spread_in_order_and_inside() -> None:
    # 5 and 5.1 are too near: the second moves up to 6. 9.8 is pushed to 10, the end, from where 9.9's place is 9.
    assert spread([5.1, 1.0, 5.0], gap=1, low=0, high=10) == [6.0, 1.0, 5.0]
    assert spread([9.9, 9.8], gap=1, low=0, high=10) == [10, 9]


def test_the_mean_curve_goes_as_far_as_every_seed_came(trials: Trials) -> None:
    shorter = [trial.curve[:6] if trial.seed == 2 else trial.curve for trial in trials.of("grpo")]
    cut = [trial.__class__(**{**vars(trial), "curve": c}) for trial, c in zip(trials.of("grpo"), shorter, strict=True)]
    points = mean_curve(cut)
    # Smoothed rewards: 0.3, 0.4 of seed 1; 0.1, 0.1 of seed 2. Smoothed KL at the fifth step: (0 + .5 + … + 2) / 5 = 1.
    assert [point.reward for point in points] == pytest.approx([0.2, 0.25])
    assert points[0].kl == pytest.approx(1.0)
    assert [point.tokens for point in points] == [500, 600]


@pytest.mark.slow
def test_all_is_written_and_the_same_bytes_again(trials: Trials, tmp_path: Path) -> None:
    names = ["table.md", "table.csv", "seeds.csv", "bakeoff.png", "frontier.png"]
    for folder in ("one", "two"):
        _, files = write(trials, 0.35, tmp_path / folder)
        assert [path.name for path in files] == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
