"""A policy section written out for an algorithm: its budget from the recipe, its numbers from its source."""

import pytest

from rlpipe.algos import ALGOS
from rlpipe.algos.sections import section, sectionable
from rlpipe.errors import ConfigError
from tests.unit.algos.written import DISTILLATION, OFFLINE, ONLINE, RECIPE


def test_an_online_section():
    assert section("grpo", RECIPE) == {
        "algorithm": "grpo", **ONLINE, "kl_coef": 0.04, "clip_low": 0.2, "clip_high": 0.2,
    }  # fmt: skip


def test_the_tasks_own_numbers_go_before_the_sources():
    assert ALGOS["dpo"].recommended["beta"] == 0.1
    assert section("dpo", RECIPE) == {"algorithm": "dpo", **OFFLINE, "beta": 1.0, "label_smoothing": 0.0}


def test_a_distillation_section():
    assert section("on_policy_distillation", RECIPE) == {"algorithm": "on_policy_distillation", **DISTILLATION}


def test_a_reader_finds_the_algorithm_first_and_its_numbers_last():
    assert list(section("grpo", RECIPE)) == ["algorithm", *ONLINE, "kl_coef", "clip_low", "clip_high"]


def test_stages_have_no_policy_section():
    assert set(ALGOS) - set(sectionable()) == {"sft", "reward_model", "process_reward_model"}
    with pytest.raises(ConfigError, match=r"'reward_model': a stage of its own, not a policy section\."):
        section("reward_model", RECIPE)


def test_an_unknown_algorithm_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"algorithm 'gprpo': unknown\. Did you mean 'grpo'\?"):
        section("gprpo", RECIPE)
