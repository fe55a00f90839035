"""A component of the user's own: found, checked, called; and what becomes of its mistakes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rlpipe.config.schema import RewardPart
from rlpipe.errors import ConfigError, RewardError
from rlpipe.rewards import Missing, bind, refuse
from rlpipe.rewards.dotted import dotted
from rlpipe.types import Task

TASKS = [Task(f"t:{n}", "q", "7", {"colour": "red"}) for n in range(3)]
_numbers = count()

SOURCE = """
def words(tasks, completions, *, power: float = 1.0, mark: str = ""):
    return [len(text.split()) ** power for text in completions]

def columns(tasks, completions):
    return [float(task.columns["colour"] == "red") for task in tasks]
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """Write a module into the run's folder; each has a name of its own, since Python keeps what it imported."""

    def write(source: str) -> str:
        name = f"own_reward_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    return write


def test_it_is_imported_from_the_runs_folder_and_sees_the_columns(
    written: Callable[[str], str], tmp_path: Path
) -> None:
    module = written(SOURCE)
    assert dotted(f"{module}:words", tmp_path, "at")(TASKS, ["a", "a b", ""]) == [1.0, 2.0, 0.0]
    assert dotted(f"{module}.words", tmp_path, "at")(TASKS, ["a", "a b", ""]) == [1.0, 2.0, 0.0]
    assert dotted(f"{module}:columns", tmp_path, "at")(TASKS, ["", "", ""]) == [1.0, 1.0, 1.0]


def test_its_keyword_parameters_are_its_options(written: Callable[[str], str], tmp_path: Path) -> None:
    module = written(SOURCE)
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()[:16]
    part = RewardPart.model_validate(
        {"weight": 1.0, "function": f"{module}:words", "sha256": digest, "power": 2.0, "mark": "x"}
    )
    component = bind("own", part, {}, tmp_path, "pairs.reward.own")
    assert component(TASKS, ["a", "a b", "a b c"]) == [1.0, 4.0, 9.0]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"function": "{m}:words", "powr": 2.0}, "pairs.reward.own.powr=2.0: no such option of this component. Did "
         "you mean 'power'?"),
        ({"function": "{m}:words", "power": "two"}, "pairs.reward.own.power='two': Input should be a valid number."),
        ({"function": "{m}:word"}, "module {m} has no function 'word'"),
        ({"function": "{m}"}, "pairs.reward.own.function={m}: expected module:function"),
        ({"function": "no_such_module:f"}, "cannot be imported from"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(
    part: dict[str, Any], said: str, written: Callable[[str], str], tmp_path: Path
) -> None:
    module = written(SOURCE)
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    whole = {"weight": 1.0, "sha256": digest, **part, "function": part["function"].replace("{m}", module)}
    with pytest.raises(ConfigError) as error:
        refuse({"own": RewardPart.model_validate(whole)}, tmp_path, "pairs.reward")
    assert said.replace("{m}", module) in str(error.value)


def test_a_function_that_takes_no_completions_is_refused(written: Callable[[str], str], tmp_path: Path) -> None:
    module = written("def f(tasks):\n    return []\n")
    digest = hashlib.sha256((tmp_path / f"{module}.py").read_bytes()).hexdigest()
    part = RewardPart(weight=1.0, function=f"{module}:f", sha256=digest)
    with pytest.raises(ConfigError, match=r"reward\.own: a component is a function of \(tasks, completions\)"):
        bind("own", part, {}, tmp_path, "reward.own")


def test_a_changed_file_is_refused_until_it_is_recorded(written: Callable[[str], str], tmp_path: Path) -> None:
    module = written(SOURCE)
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()[:16]
    recorded = RewardPart(weight=1.0, function=f"{module}:words", sha256=digest)
    bind("own", recorded, {}, tmp_path, "reward.own")
    (tmp_path / f"{module}.py").write_text(SOURCE + "# changed\n", encoding="utf-8")
    changed = hashlib.sha256((SOURCE + "# changed\n").encode()).hexdigest()[:16]
    with pytest.raises(ConfigError, match=f'Set sha256: "{changed}"'):
        bind("own", recorded, {}, tmp_path, "reward.own")
    for recorded_as in (None, "", changed[:15]):  # a few digits are no record
        part = RewardPart(weight=1.0, function=f"{module}:words", sha256=recorded_as)
        with pytest.raises(ConfigError, match=rf"reward\.own\.sha256={recorded_as}: "):
            bind("own", part, {}, tmp_path, "reward.own")


def test_what_lies_in_rlpipe_rewards_needs_no_record() -> None:
    part = RewardPart(weight=1.0, function="rlpipe.rewards.overlap:token_f1")
    assert bind("words_shared", part, {}, Path(), "reward.words_shared")(TASKS[:1], ["7"]) == [1.0]


def test_a_components_name_cannot_be_given_to_another() -> None:
    part = RewardPart(weight=1.0, function="rlpipe.rewards.overlap:token_f1")
    with pytest.raises(ConfigError, match=r"reward\.format\.function=.*format is a component already"):
        bind("format", part, {}, Path(), "reward.format")


def test_what_is_no_finite_number_is_missing(written: Callable[[str], str], tmp_path: Path) -> None:
    answers = [None, math.nan, "five", [1.0], True, 3, 10**400]
    module = written(f"nan = float('nan')\ndef f(tasks, completions):\n    return {answers!r}\n")
    found = dotted(f"{module}:f", tmp_path, "at")([TASKS[0]] * 7, [""] * 7)
    assert found[4:6] == [1.0, 3.0]
    assert [score.reason for score in found if isinstance(score, Missing)] == [
        "the function gave None",
        "the function gave nan",
        "the function gave str, not a finite number",
        "the function gave list, not a finite number",
        "the function gave int, not a finite number",
    ]


def test_a_completion_that_makes_it_raise_is_missing_and_its_siblings_are_not(
    written: Callable[[str], str], tmp_path: Path
) -> None:
    module = written("def f(tasks, completions):\n    return [1 / len(text) for text in completions]\n")
    assert dotted(f"{module}:f", tmp_path, "at")(TASKS, ["ab", "", "abcd"]) == [
        0.5,
        Missing("ZeroDivisionError: division by zero"),
        0.25,
    ]


def test_a_wrong_number_of_scores_cannot_be_put_to_completions(written: Callable[[str], str], tmp_path: Path) -> None:
    module = written("def f(tasks, completions):\n    return [1.0]\n")
    with pytest.raises(RewardError, match="1 scores for 3 completions"):
        dotted(f"{module}:f", tmp_path, "at")(TASKS, ["", "", ""])


def test_a_mistake_in_an_option_is_no_missing_score() -> None:
    # One of our own components under another name; it refuses its options itself.
    part = RewardPart.model_validate(
        {"weight": 1.0, "function": "rlpipe.rewards.length:length", "max_length": 1, "cache_length": 2}
    )
    with pytest.raises(ConfigError, match=r"length\.cache_length=2: exceeds max_length=1"):
        bind("short", part, {}, Path(), "reward.short")(TASKS, ["a", "b", "c"])
