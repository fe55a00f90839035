"""Policies written into a params.yaml: exactly those, in a form that reads back the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from rlpipe.config.edit import policies_text, with_policies
from rlpipe.errors import ConfigError

TEXT = (Path(__file__).resolve().parents[3] / "params.yaml").read_text()
SECTION = {
    "algorithm": "grpo", "starts_from": "models/sft", "learns_from": "data/prepared", "steps": 3, "token_budget": None,
    "optim": {"lr": 5e-5, "schedule": "constant"},
}  # fmt: skip


def test_the_policies_are_replaced_and_everything_else_stays() -> None:
    before, after = (YAML(typ="safe").load(text) for text in (TEXT, with_policies(TEXT, {"mine": SECTION})))
    assert after.pop("policy") == {"mine": SECTION}
    assert after["evaluate"].pop("models") == ["sft", "mine"]
    assert after["pairs"]["gold"].pop("token_budget") == before["recipe"]["online"]["token_budget"]
    del before["policy"], before["evaluate"]["models"], before["pairs"]["gold"]["token_budget"]
    assert after == before


def test_comments_stay_and_inner_settings_are_on_a_line() -> None:
    text = with_policies(TEXT, {"mine": SECTION})
    assert "# The only configuration." in text
    assert "    optim: {lr: 5e-05, schedule: constant}\n" in text
    assert "    token_budget: null\n" in text
    assert "models: [sft, mine]" in text


def test_a_name_that_a_stage_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"policy\.sft: the name is taken"):
        with_policies(TEXT, {"sft": SECTION})


def test_sections_can_be_written_alone() -> None:
    assert YAML(typ="safe").load(policies_text({"mine": SECTION})) == {"policy": {"mine": SECTION}}
