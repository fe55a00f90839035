"""Read `params.yaml`, or say which key breaks which rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rlpipe.config.schema import Params
from rlpipe.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


def load(root: Path) -> Params:
    """The parameters of the checkout or workspace `root`.

    Raises: ConfigError naming each offending key, its value, the rule and the remedy.
    """
    path = root / "params.yaml"
    if not path.exists():
        raise ConfigError(f"{path}: no such file. Run inside a checkout of rlpipe.")
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Params:
    """The parameters written in `text`. Raises: ConfigError."""
    try:
        raw = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"params.yaml is no valid YAML: {error}") from None
    if not isinstance(raw, Mapping):
        raise ConfigError("params.yaml: expected sections such as `data:` at the top level.")
    params = validated(Params, raw, at="")
    _check_references(params)
    return params


def validated(model: type[Model], raw: Mapping[str, Any], *, at: str) -> Model:
    """`raw` as a `model`; `at` is the dotted prefix of its keys in messages. Raises: ConfigError."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(problem, model, at) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(problem: Mapping[str, Any], model: type[BaseModel], at: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join([at, *path] if at else path)
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"{key}: unknown key.{nearest(path[-1], _keys_beside(model, path))}"
    if kind == "missing":
        return f"{key}: missing. Every number lives in params.yaml; add the key."
    value = "" if isinstance(problem["input"], Mapping) else f"={problem['input']!r}"
    return f"{key}{value}: {message}."


def _keys_beside(model: type[BaseModel], path: list[str]) -> list[str]:
    """Valid names of the section in which the last part of `path` stands."""
    section: Any = model
    for part in path[:-1]:
        field = section.model_fields.get(part)
        if field is None:
            break
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), section)
    return list(section.model_fields)


def _check_references(params: Params) -> None:
    """Names that one section uses of another must exist there."""
    for name in params.policy:
        if name in ("sft", "judge", "reward_model", "process_reward_model"):
            raise ConfigError(f"policy.{name}: the name is taken by the stage that writes models/{name}. Rename it.")
    known = ["sft", *params.policy]
    for name in params.evaluate.models:
        if name not in known:
            raise ConfigError(f"evaluate.models={params.evaluate.models}: no model {name!r}.{nearest(name, known)}")
    if "sft" not in params.evaluate.models:
        raise ConfigError("evaluate.models: 'sft' is missing. Every policy is compared with it; add it.")
    _check_paths(params)
    _check_pairs_are_made(params)


def _check_paths(params: Params) -> None:
    """What one section reads, another must write."""
    starts = ["models/sft", *(f"models/{name}" for name in params.policy)]
    pairs = [f"data/pairs/{name}" for name in params.pairs]
    for name, made in params.pairs.items():
        _one_of(f"pairs.{name}.samples_from", made.samples_from, starts)
        _one_of(f"pairs.{name}.labels_from", made.labels_from, ["data/prepared", "models/judge"])
        _check_principles(params, f"pairs.{name}", made.principles_from)
        if made.principles_from != "data/prepared" and made.reward is not None:
            raise ConfigError(
                f"pairs.{name}.principles_from={made.principles_from}: principles compare two responses, and reward "
                "scores them one by one. Set reward to null, or principles_from to data/prepared."
            )
    _check_constitution(params)
    for name, scorer in params.reward_model.items():
        _one_of(f"reward_model.{name}.learns_from", scorer.learns_from, pairs)
        _one_of(f"reward_model.{name}.starts_from", scorer.starts_from, starts)
    for name, policy in params.policy.items():
        others = [start for start in starts if start != f"models/{name}"]
        _one_of(f"policy.{name}.starts_from", policy.starts_from, others)
        if params.model.adapter is not None and policy.starts_from != "models/sft":
            raise ConfigError(
                f"policy.{name}.starts_from={policy.starts_from}: with model.adapter a policy is an adapter on "
                "models/sft, and no second one stands on it. Set models/sft, or model.adapter to null."
            )
        if policy.learns_from.startswith("data/pairs"):
            _one_of(f"policy.{name}.learns_from", policy.learns_from, pairs)
        if policy.learns_from.startswith("models/reward_model"):
            scorers = [f"models/reward_model/{scorer}" for scorer in params.reward_model]
            _one_of(f"policy.{name}.learns_from", policy.learns_from, scorers)


def _check_constitution(params: Params) -> None:
    """Who criticises can do it, and what learns from revisions finds some."""
    starts = ["models/sft", *(f"models/{name}" for name in params.policy)]
    _one_of("constitution.samples_from", params.constitution.samples_from, starts)
    _check_principles(params, "judge_model", params.judge_model.principles_from)
    if params.constitution.source == "policy":
        _refuse_unable(params, "constitution.source=policy")
    for name, policy in params.policy.items():
        if policy.learns_from == "data/constitution" and params.constitution.source == "none":
            raise ConfigError(
                f"policy.{name}.learns_from=data/constitution: constitution.source is none, so there are no "
                "demonstrations. Set it to policy."
            )


def _check_principles(params: Params, at: str, value: str) -> None:
    _one_of(f"{at}.principles_from", value, ["data/prepared", params.constitution.principles])
    if value != "data/prepared" and at != "judge_model":
        _refuse_unable(params, f"{at}.principles_from={value}")


def _refuse_unable(params: Params, at: str) -> None:
    """A program cannot criticise, and the embedded judge only what it was taught."""
    if params.judge.kind in ("rubric", "none"):
        raise ConfigError(
            f"{at}: judge.kind is {params.judge.kind}, which reads no principles. Set another judge.kind."
        )
    if params.judge.kind == "embedded" and params.judge_model.principles_from != params.constitution.principles:
        raise ConfigError(
            f"{at}: the embedded judge was not taught the principles. Set judge_model.principles_from to "
            f"{params.constitution.principles}."
        )


def _one_of(at: str, value: str, known: list[str]) -> None:
    if value not in known:
        raise ConfigError(f"{at}={value}: no stage writes it.{nearest(value, known)}")


def _check_pairs_are_made(params: Params) -> None:
    """Nothing learns from a set of pairs that is empty by intent."""
    empty = {f"data/pairs/{name}" for name, made in params.pairs.items() if made.source == "none"}
    empty |= {f"models/reward_model/{name}" for name, scorer in params.reward_model.items()
              if scorer.learns_from in empty}  # fmt: skip
    for name, policy in params.policy.items():
        if policy.learns_from in empty:
            raise ConfigError(
                f"policy.{name}.learns_from={policy.learns_from}: the source of these pairs is none, so there are no "
                "pairs and no reward model. Set it to policy or dataset."
            )
