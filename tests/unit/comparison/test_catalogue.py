"""`rlpipe algos`: complete, and ready to paste."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpipe.algos import ALGOS
from rlpipe.algos.plan import plans
from rlpipe.algos.sections import sectionable
from rlpipe.comparison.catalogue import card, table
from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[3]
PARAMS = (REPOSITORY / "params.yaml").read_text()
RECIPE = parse(PARAMS).recipe


def test_every_algorithm_has_a_line_with_its_needs() -> None:
    lines = {line.split()[0]: line for line in table().splitlines()[1:]}
    assert set(lines) == set(ALGOS)
    for name, algo in ALGOS.items():
        assert ", ".join(algo.requires) in lines[name]
        assert lines[name].endswith(algo.source)
    assert "critic" in lines["ppo"]
    assert "group ≥ 2" in lines["rloo"]
    assert "pairs" in lines["dpo"]
    assert "teacher" in lines["distillation"]


@pytest.mark.parametrize("name", sectionable())
def test_a_card_laid_over_params_yaml_is_a_policy_that_can_run(name: str) -> None:
    params = parse(edited(PARAMS, card(name, RECIPE), []))
    assert params.policy[name].algorithm == name
    plans(params)


def test_a_card_shows_what_is_chosen_and_what_else_could_be() -> None:
    lines = card("ppo", RECIPE).splitlines()
    place = lines.index("# policy_loss: ppo_clip")
    assert "gspo" in lines[place + 1].split()
    assert "ppo_clip" not in lines[place + 1].split()
    assert "# baseline: critic" in lines
    assert "# kl_placed: reward" in lines


@pytest.mark.parametrize("name", ["sft", "reward_model", "process_reward_model"])
def test_the_card_of_a_stage_says_where_its_section_is(name: str) -> None:
    text = card(name, RECIPE)
    assert f"the section `{name}:` of params.yaml" in text
    assert "policy:" not in text


def test_an_unknown_algorithm_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'grpo'"):
        card("grop", RECIPE)
