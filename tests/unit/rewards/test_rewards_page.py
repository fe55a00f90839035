"""docs/rewards.md says what there is: its examples pass, its table has every verifier with every option."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from rlpipe.config.schema import Composition
from rlpipe.rewards import VERIFIERS, refuse

PAGE = (Path(__file__).resolve().parents[3] / "docs/rewards.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
ROWS = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, re.MULTILINE))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_reward(example: str) -> None:
    written = YAML(typ="safe").load(example)["reward"]
    refuse(TypeAdapter(Composition).validate_python(written), Path(), "reward")


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_a_verifier_stands_in_the_table_with_its_options(name: str) -> None:
    options = list(signature(VERIFIERS[name]).parameters)[2:]
    assert name in ROWS
    if f"rlpipe/rewards/{name}.py" not in ROWS[name]:
        assert set(re.findall(r"`(\w+)`", ROWS[name].rpartition("|")[2])) == set(options)
