"""What a stage reads and writes, and the hashes by which DVC knows it. Standard library and YAML only.

The same hash is computed from the files when a stage ends and from `dvc.lock` when a stage is restored, so a
restored stage is found again under what it made.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rlpipe.errors import ConfigError, nearest

_REFERENCE = re.compile(r"\$\{(.*?)\}")


@dataclass(frozen=True)
class Declared:
    """What `dvc.yaml` says of one stage: paths relative to the root, and dotted keys of `params.yaml`."""

    outs: tuple[str, ...]
    params: tuple[str, ...]


def digest(path: Path) -> str:
    """The md5 that DVC writes to `dvc.lock` for a file, or for a folder (it ends with `.dir`).

    A folder's is the md5 of its list of files, sorted by path, each with its md5. DVC leaves out what
    `.dvcignore` names; this does not, and no output of the pipeline holds such a file.
    """
    if path.is_file():
        return _md5(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listing = [{"md5": _md5(files[name]), "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def outputs_hash(md5s: Mapping[str, str]) -> str:
    """One hash of a stage's outputs, given each path's md5; the order does not matter."""
    return hashlib.md5(json.dumps(dict(md5s), sort_keys=True).encode()).hexdigest()


def lock_outputs(root: Path, address: str) -> dict[str, str]:
    """Path -> md5 of the outputs that `dvc.lock` records for a stage; empty where it records none."""
    lock = _read(root / "dvc.lock") if (root / "dvc.lock").exists() else {}
    entry = lock.get("stages", {}).get(address, {})
    return {out["path"]: out["md5"] for out in entry.get("outs", ())}


def file_outputs(root: Path, address: str) -> dict[str, str]:
    """Path -> md5 of the files and folders that a stage has just written."""
    return {path: digest(root / path) for path in declared(root, address).outs}


def declared(root: Path, address: str) -> Declared:
    """The outputs (metrics and plots among them) and parameters of a stage such as `policy@grpo`.

    Raises: ConfigError if `dvc.yaml` has no such stage.
    """
    stages, params = _read(root / "dvc.yaml")["stages"], _read(root / "params.yaml")
    found = {name: scope for stage, body in stages.items() for name, scope in _instances(stage, body, params)}
    if address not in found:
        raise ConfigError(f"stage {address!r}: dvc.yaml has none of this name.{nearest(address, found)}")
    body = stages[address.partition("@")[0]]
    body, scope = body.get("do", body), {**params, **found[address]}
    outs = [entry for kind in ("outs", "metrics", "plots") for entry in body.get(kind, ())]
    return Declared(
        outs=tuple(_filled(_name(entry), scope) for entry in outs),
        params=tuple(_filled(_name(entry), scope) for entry in body.get("params", ())),
    )


def flattened(values: Mapping[str, Any], keys: tuple[str, ...] | None = None) -> dict[str, str]:
    """Parameters by their dotted keys, as text.

    Args:
        keys: dotted keys of the sections to take; all of them when None.
    """
    flat = dict(_flat("", values))
    if keys is None:
        return flat
    return {name: value for name, value in flat.items() if any(f"{name}.".startswith(f"{key}.") for key in keys)}


def _instances(stage: str, body: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stages that one block of `dvc.yaml` stands for, as DVC names them, with what their text may use."""
    if "foreach" in body:
        items = _value(body["foreach"], params)
        named = items.items() if isinstance(items, Mapping) else ((str(item), item) for item in items)
        for key, item in named:
            yield f"{stage}@{key}", {"key": key, "item": item}
    elif "matrix" in body:
        axes = {axis: _value(values, params) for axis, values in body["matrix"].items()}
        for combination in itertools.product(*axes.values()):
            key = "-".join(str(value) for value in combination)
            yield f"{stage}@{key}", {"key": key, "item": dict(zip(axes, combination, strict=True))}
    else:
        yield stage, {}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def _name(entry: str | Mapping[str, Any]) -> str:
    """The path of an entry, which may carry settings as `path: {cache: false}`."""
    return entry if isinstance(entry, str) else next(iter(entry))


def _value(text: Any, scope: Mapping[str, Any]) -> Any:
    """`${a.b}` as the value it names; anything else as it stands."""
    whole = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    return _lookup(whole[1], scope) if whole else text


def _filled(text: str, scope: Mapping[str, Any]) -> str:
    return _REFERENCE.sub(lambda match: str(_lookup(match[1], scope)), text)


def _lookup(dotted: str, scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    for part in dotted.strip().split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"dvc.yaml: ${{{dotted}}} names nothing in params.yaml. Mend the reference.")
        value = value[part]
    return value


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return loaded
