"""What is read from a bakeoff's workspaces, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlpipe.algos.sections import section
from rlpipe.comparison import collect as room
from rlpipe.comparison.collect import Measured, collect
from rlpipe.config import parse
from rlpipe.config.edit import edited, with_policies
from rlpipe.errors import DataError
from rlpipe.tracking import Cost

REPOSITORY = Path(__file__).resolve().parents[3]
_ONLINE = """\
step,reward/gold_mean,kl/ref_seq_sum,length/tokens_drawn
0,0.25,0.0,100
1,0.5,0.75,210
"""
# Measured at steps 0 and 2 only; the lengths of its measurements are nobody's tokens to learn from.
_FROM_PAIRS = """\
step,policy/loss,reward/gold_mean,kl/ref_seq_sum
0,0.7,0.25,0.0
1,0.6,,
2,0.5,0.5,0.75
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that has finished sft, grpo and dpo. MLflow knows what `policy@grpo` cost."""
    text = (REPOSITORY / "params.yaml").read_text()
    recipe = parse(text).recipe
    text = with_policies(text, {name: section(name, recipe) for name in ("grpo", "dpo")})
    for name, accuracy in (("sft", 0.25), ("grpo", 0.5), ("dpo", 0.375)):
        write(tmp_path / f"metrics/evaluate/{name}.json", json.dumps({"pass_at_1": accuracy, "kl_ref_seq": 1.5}))
    write(tmp_path / "params.yaml", text)
    write(tmp_path / "metrics/pairs/gold.json", json.dumps({"data/tokens_drawn": 900}))
    write(tmp_path / "plots/policy/grpo.csv", _ONLINE)
    write(tmp_path / "plots/policy/dpo.csv", _FROM_PAIRS)

    def costs(at: Path, _: object, steps: dict[str, int]) -> dict[str, Cost]:
        assert at == tmp_path
        return {address: Cost(float(count), 1.0) for address, count in steps.items()}

    monkeypatch.setattr(room, "costs", costs)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_tokens_are_the_samples_or_those_of_the_pairs(root: Path) -> None:
    trials = collect("b", {17: root}, {17: {"sft", "grpo", "dpo"}})
    assert trials.algorithms == ("sft", "grpo", "dpo")
    sft, grpo, dpo = trials.trials
    assert grpo.curve == (Measured(100, 0.25, 0.0), Measured(210, 0.5, 0.75))
    assert dpo.curve == (Measured(900, 0.25, 0.0), Measured(900, 0.5, 0.75))
    assert (sft.tokens, grpo.tokens, dpo.tokens) == (0, 210, 900)
    assert (sft.accuracy, grpo.accuracy, dpo.accuracy, grpo.kl) == (0.25, 0.5, 0.375, 1.5)
    assert (grpo.cost, dpo.cost) == (Cost(2.0, 1.0), Cost(3.0, 1.0))  # two and three steps


def test_a_learned_reward_costs_the_pairs_tokens_too(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(edited(text, None, ["policy.grpo.learns_from=models/reward_model/gold"]))
    _, grpo, _ = collect("b", {17: root}, {17: {"sft", "grpo", "dpo"}}).trials
    assert [point.tokens for point in grpo.curve] == [1000, 1110]


def test_what_did_not_finish_is_no_trial_whatever_an_earlier_run_left(root: Path) -> None:
    trials = collect("b", {17: root}, {17: {"sft", "dpo"}})
    assert [trial.algorithm for trial in trials.trials] == ["sft", "dpo"]
    assert trials.algorithms == ("sft", "grpo", "dpo")


def test_a_missing_number_names_file_and_key(root: Path) -> None:
    write(root / "plots/policy/grpo.csv", _ONLINE.replace("length/tokens_drawn", "length/mean"))
    with pytest.raises(DataError, match=r"grpo\.csv: 'length/tokens_drawn' is missing"):
        collect("b", {17: root}, {17: {"grpo"}})
    (root / "metrics/evaluate/dpo.json").unlink()
    with pytest.raises(DataError, match=r"evaluate/dpo\.json: no such file"):
        collect("b", {17: root}, {17: {"dpo"}})
