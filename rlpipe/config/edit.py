"""Change the text of `params.yaml`, keeping its comments: presets (overlays), `key=value` overrides, whole policies."""

from __future__ import annotations

import io
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from rlpipe.config.load import parse
from rlpipe.errors import ConfigError, nearest

# Sections whose keys are names of the user's choosing, so that an override may add one.
_NAMED = ("policy", "pairs", "reward_model")
_NULL = "tag:yaml.org,2002:null"


def edited(text: str, preset: str | None, assignments: Sequence[str]) -> str:
    """`text` of a params.yaml with a preset's text laid over it and then each `dotted.key=value` applied.

    A null in a preset or assignment removes an entry of an open section (such as `policy.dpo=null`) and sets
    null elsewhere. The result is validated as a whole.

    Raises: ConfigError for an unknown key (with the nearest valid one), an unreadable value, or a broken rule.
    """
    document = _round_trip().load(text)
    if preset is not None:
        _overlay(document, _read(preset, "preset"), ())
    for assignment in assignments:
        _assign(document, assignment)
    return _checked(document)


def with_policies(text: str, sections: Mapping[str, Mapping[str, Any]]) -> str:
    """`text` of a params.yaml whose policies are exactly `sections`, all of them evaluated beside SFT.

    The `token_budget` of every set of pairs becomes the one of `recipe.online`, so that those who learn from pairs
    generate as many tokens as those who sample while they learn.

    Raises: ConfigError where the result breaks a rule.
    """
    document = _round_trip().load(text)
    document["policy"] = _policies(sections)
    document["evaluate"]["models"][:] = ["sft", *sections]
    for pairs in document["pairs"].values():
        pairs["token_budget"] = document["recipe"]["online"].get("token_budget")
    return _checked(document)


def policies_text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """The part `policy:` of a params.yaml with these `sections`, to be pasted into one."""
    return _dumped({"policy": _policies(sections)})


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    # Written out, as in the file: round-tripping would leave the value empty.
    yaml.representer.add_representer(type(None), lambda dump, _: dump.represent_scalar(_NULL, "null"))
    return yaml


def _dumped(document: Any) -> str:
    buffer = io.StringIO()
    _round_trip().dump(document, buffer)
    return buffer.getvalue()


def _checked(document: Any) -> str:
    """The document's text. Raises: ConfigError where it breaks a rule."""
    text = _dumped(document)
    parse(text)
    return text


def _policies(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sections with their inner mappings, such as `optim`, on a line each: as a person writes them."""
    return {
        name: {key: _on_a_line(value) if isinstance(value, Mapping) else value for key, value in section.items()}
        for name, section in sections.items()
    }


def _on_a_line(mapping: Mapping[str, Any]) -> CommentedMap:
    flow = CommentedMap(mapping)
    flow.fa.set_flow_style()
    return flow


def _overlay(target: MutableMapping[str, Any], overlay: Mapping[str, Any], at: tuple[str, ...]) -> None:
    for key, value in overlay.items():
        path = (*at, str(key))
        if isinstance(value, Mapping) and isinstance(target.get(key), MutableMapping) and not _is_weights(path):
            _overlay(target[key], value, path)
        else:
            _set(target, path, value)


def _assign(document: MutableMapping[str, Any], assignment: str) -> None:
    dotted, equals, written = assignment.partition("=")
    if not equals:
        raise ConfigError(f"-S {assignment}: expected key=value, such as policy.grpo.kl_coef=0.1.")
    path = tuple(dotted.strip().split("."))
    target: Any = document
    for depth, part in enumerate(path[:-1]):
        if not isinstance(target, Mapping) or not isinstance(target.get(part), Mapping):
            raise _unknown(path[: depth + 1], target)
        target = target[part]
    _set(target, path, _read(written, assignment))


def _set(target: MutableMapping[str, Any], path: tuple[str, ...], value: Any) -> None:
    key = path[-1]
    is_open = _is_open(path)
    if key not in target and not is_open:
        raise _unknown(path, target)
    if value is None and is_open:
        target.pop(key, None)
    else:
        target[key] = value


def _is_open(path: tuple[str, ...]) -> bool:
    """Whether the section that holds `path` has names or settings of the user's choosing."""
    if path[:2] == ("watch", "heldout"):
        return len(path) > 2
    if path[0] not in _NAMED:
        return False
    return len(path) == 2 or (path[0] == "policy" and len(path) >= 3) or "reward" in path[2:-1]


def _is_weights(path: tuple[str, ...]) -> bool:
    """A mapping of reward weights is replaced as a whole: merging would leave the old components in."""
    return path[-1] == "reward" or path == ("watch", "heldout")


def _unknown(path: tuple[str, ...], beside: Any) -> ConfigError:
    names = [str(name) for name in beside] if isinstance(beside, Mapping) else []
    return ConfigError(f"{'.'.join(path)}: unknown key.{nearest(path[-1], names) if names else ''}")


def _read(text: str, where: str) -> Any:
    try:
        return _quoted(YAML().load(text))
    except YAMLError as error:
        raise ConfigError(f"{where}: no valid YAML: {error}") from None


def _quoted(value: Any) -> Any:
    """The value with quotes around texts that hold a colon: DVC's reader refuses them bare inside of braces."""
    if isinstance(value, str):
        return DoubleQuotedScalarString(value) if ":" in value else value
    if isinstance(value, MutableMapping):
        for key in value:
            value[key] = _quoted(value[key])
    if isinstance(value, MutableSequence):
        for at, item in enumerate(value):
            value[at] = _quoted(item)
    return value
