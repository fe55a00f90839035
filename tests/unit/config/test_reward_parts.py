"""What a reward in params.yaml may say, in short and at length, and what is refused before anything loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.config.schema import Params, RewardPart
from rlpipe.errors import ConfigError
from rlpipe.stages.runner import checked

TEXT = (Path(__file__).resolve().parents[3] / "params.yaml").read_text()


def written(tmp_path: Path, *assignments: str) -> Path:
    (tmp_path / "params.yaml").write_text(edited(TEXT, None, assignments), encoding="utf-8")
    return tmp_path


def parts(*assignments: str) -> dict[str, RewardPart]:
    params: Params = parse(edited(TEXT, None, assignments))
    return dict(params.pairs["gold"].reward)


def test_a_number_is_a_weight() -> None:
    assert parts("pairs.gold.reward={math_answer: 1.0, format: 2}") == {
        "math_answer": RewardPart(weight=1.0),
        "format": RewardPart(weight=2.0),
    }


def test_at_length_every_other_key_is_an_option() -> None:
    long = "{format: 0.0, length: {weight: 0.1, gate: format, norm: group, clip: [-1, 1], max_length: 20}}"
    part = parts(f"pairs.gold.reward={long}")["length"]
    assert (part.weight, part.gate, part.norm, part.clip) == (0.1, "format", "group", [-1, 1])
    assert part.options == {"max_length": 20}


@pytest.mark.parametrize(
    "written", [{"format": 0.5}, {"format": 0.5, "repetition": {"weight": -1.0, "gate": "format", "n": 3}}]
)
def test_it_is_logged_as_it_is_written(written: dict[str, Any]) -> None:
    params = parse(edited(TEXT, None, [f"pairs.gold.reward={written}".replace("'", "")]))
    assert params.model_dump()["pairs"]["gold"]["reward"] == written


def test_one_key_of_a_part_can_be_set_or_added() -> None:
    changed = parts("pairs.gold.reward={http: {weight: 1.0, url: here}}", "pairs.gold.reward.http.timeout_s=5.0")
    assert changed["http"].options == {"url": "here", "timeout_s": 5.0}
    assert parts("pairs.gold.reward.format=0.5").keys() == {"math_answer", "format"}


GOOD = {"weight": 0.1, "max_length": 30, "cache_length": 10}


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ({"math_anser": 1.0}, "reward.math_anser: no such component. Did you mean 'math_answer'?"),
        ({"format": "much"}, "expected a weight, or {weight: ..., gate: ..., ...}"),
        ({"format": True}, "expected a weight, or {weight: ..., gate: ..., ...}"),
        ({"format": {"gate": "x"}}, "reward.format.weight: missing."),
        ({"format": float("nan")}, "Input should be a finite number"),
        ({"format": {"weight": 1.0, "norm": "run"}}, "reward.format.norm='run': Input should be 'batch' or 'group'."),
        ({"format": {"weight": 1.0, "clip": [1.0, -1.0]}}, "the first bound must be the lower one"),
        ({"format": {"weight": 1.0, "gate_min": 0.5}}, "gate_min 0.5 without a gate"),
        ({"format": {"weight": 1.0, "n": 3}}, "reward.format.n=3: no such option of this component. It has none."),
        ({"math_answer": {"weight": 1.0, "gate": "formt"}, "format": 0.0},
         "math_answer.gate=formt: no such component in this reward"),
        ({"format": {"weight": 1.0, "gate": "token_f1"}, "token_f1": {"weight": 1.0, "gate": "format"}},
         "the gates go in a circle"),
        ({"format": {"weight": 1.0, "gate": "format"}}, "the gates go in a circle, format -> format"),
        ({"length": {**GOOD, "max_lenght": 9}}, "reward.length.max_lenght=9: no such option of this component. Did you "
         "mean 'max_length'?"),
        ({"length": {"weight": 0.1, "max_length": 30}}, "reward.length.cache_length: missing"),
        ({"length": {**GOOD, "max_length": "long"}}, "max_length='long': Input should be a valid integer"),
        ({"length": {**GOOD, "max_length": 0}}, "reward.length.max_length=0: Input should be greater than or equal"),
        ({"length": {**GOOD, "cache_length": 31}}, "length.cache_length=31: exceeds max_length=30"),
        ({"http": 1.0}, "reward.http.url: missing"),
        ({"http": {"weight": 1.0, "url": "ftp://x"}}, "http.url=ftp://x: expected http://HOST:PORT/PATH"),
        ({"score": {"weight": 1.0, "function": "a:b"}}, "component 'score': a name is lower-case letters"),
        ({"My": {"weight": 1.0, "function": "a:b"}}, "component 'My': a name is lower-case letters"),
        ({"own": {"weight": 1.0, "function": "no_such_module_of_mine:b"}}, "own.function=no_such_module_of_mine"),
        ({"process_reward_model": {"weight": 1.0, "norm": "batch"}}, "only its weight has a meaning"),
        ({"process_reward_model": 1.0, "format": {"weight": 1.0, "gate": "process_reward_model"}},
         "it has no score of the whole response"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_policys_reward_is_refused(reward: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        checked(written(tmp_path, f"policy.grpo.reward={reward}".replace("'", '"').replace("nan", ".nan")
                        .replace("True", "true")))  # fmt: skip
    assert said in str(error.value)
    assert "policy.grpo.reward" in str(error.value) or "length." in said or "http." in said


def test_the_same_holds_for_the_pairs_and_for_what_evaluates(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pairs\.gold\.reward\.lenght: no such component\. Did you mean 'length'\?"):
        checked(written(tmp_path, "pairs.gold.reward={lenght: 1.0}"))
    with pytest.raises(ConfigError, match=r"pairs\.gold\.reward\.reward_model: reward_model does not exist yet"):
        checked(written(tmp_path, "pairs.gold.reward={reward_model: 1.0}"))
    with pytest.raises(ConfigError, match=r"policy\.rlaif\.reward\.judge\.model: judge has no options here"):
        checked(written(tmp_path, "policy.rlaif.reward={judge: {weight: 1.0, model: m}}"))
    with pytest.raises(ConfigError, match=r"policy\.rlaif\.reward: it asks a judge, and judge\.kind is none"):
        checked(written(tmp_path, "judge.kind=none"))
    with pytest.raises(ConfigError, match=r"evaluate\.reward=maths: no such verifier\. Did you mean 'math_answer'\?"):
        checked(written(tmp_path, "evaluate.reward=maths"))
    with pytest.raises(ConfigError, match=r"evaluate\.reward=http: it cannot do without url"):
        checked(written(tmp_path, "evaluate.reward=http"))


def test_a_share_that_may_be_missing_is_a_share(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.max_missing=1\.5: Input should be less than or equal to 1"):
        written(tmp_path, "rewards.max_missing=1.5")


def test_a_reward_at_length_passes(tmp_path: Path) -> None:
    own_length = "{weight: 0.2, max_length: 36, cache_length: 6}"
    long = "{math_answer: {weight: 1.0, gate: format}, format: 0.1, length: " + own_length + "}"
    assert checked(written(tmp_path, f"policy.grpo.reward={long}")).rewards.max_missing == 0.1


def test_an_address_set_on_the_command_line_is_read_again() -> None:
    # Bare inside of braces, `http://...` is no YAML to the reader that DVC uses.
    changed = parts(
        "pairs.gold.reward={http: {weight: 1.0, url: here}}", "pairs.gold.reward.http.url=http://127.0.0.1:80/"
    )
    assert changed["http"].options == {"url": "http://127.0.0.1:80/"}
