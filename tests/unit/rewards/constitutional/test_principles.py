"""A constitution is a file; what is wrong with it is said before anything runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rlpipe.errors import ConfigError
from rlpipe.rewards.constitutional.principles import Principle, read_principles, refuse_untaught, turn

OWN = Path(__file__).resolve().parents[4] / "data/constitution.yaml"
ONE = '  - {name: a, critique: "What?", revision: "Mend it.", question: "Good?"}\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "constitution.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_constitution_of_the_default_task_can_be_taught() -> None:
    principles = read_principles(OWN)
    assert [principle.lesson for principle in principles] == ["arithmetic", "follows", "answer"]
    refuse_untaught(principles, "arithmetic", "here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("principles: [", "is no valid YAML"),
        ("rules: []\n", "expected one key, `principles:`"),
        ("principles:\n" + ONE + ONE, "two principles are called 'a'"),
        ("principles:\n" + ONE.replace("Mend it.", ""), "revision='': it must be a text"),
        ("principles:\n" + ONE.replace("name: a, ", ""), "name=None: it must be a text"),
        ("principles:\n" + ONE.replace("What?", "{prompt}?"), "critique: braces stand for texts"),
        ("principles:\n" + ONE.replace("question", "quesion"), "quesion: unknown key. Did you mean 'question'"),
        ("principles:\n" + ONE.replace("}", ", lesson: follow}"), "no program teaches that. Did you mean 'follows'"),
        ("principles: [a]\n", "principle 1: expected name, critique, revision, question, not str"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_principles(written(tmp_path, text))
    assert said in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_principles(tmp_path / "none.yaml")


def test_the_embedded_judge_is_not_asked_what_nobody_taught_it() -> None:
    taught = Principle("a", "What?", "Mend it.", "Good?", "answer")
    untaught = Principle("kind", "Where is it unkind?", "Be kind.", "Is it kind?")
    with pytest.raises(ConfigError, match="principle 'kind' has no lesson"):
        refuse_untaught([taught, untaught], "arithmetic", "here")
    with pytest.raises(ConfigError, match=r"only data\.source=arithmetic .* this is gsm8k"):
        refuse_untaught([taught], "gsm8k", "here")
    with pytest.raises(ConfigError, match="critique and question of principle 'a' are the same"):
        refuse_untaught([Principle("a", "Good?", "Mend it.", "Good?", "answer")], "arithmetic", "here")


def test_each_principle_has_its_turn_before_one_has_a_second() -> None:
    principles = [Principle(name, "What?", "Mend it.", "Good?") for name in "abc"]
    for number in range(20):
        prompt = f"{number}+1"
        turns = [turn(principles, 17, prompt, at).name for at in range(6)]
        assert sorted(turns[:3]) == ["a", "b", "c"]
        assert turns[3:] == turns[:3]
        assert turns == [turn(principles[::-1], 17, prompt, at).name for at in range(6)]
    first = Counter(turn(principles, 17, f"{number}+1", 0).name for number in range(300))
    assert min(first.values()) > 70  # of 100 expected
    assert any(turn(principles, 17, f"{n}+1", 0) != turn(principles, 18, f"{n}+1", 0) for n in range(20))
