"""Score any file of completions by one component, outside of the pipeline: what `rlpipe score` does."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rlpipe.errors import ConfigError, DataError, nearest
from rlpipe.rewards import VERIFIERS
from rlpipe.rewards.base import Component, Explained, Missing
from rlpipe.rewards.compose import told
from rlpipe.rewards.dotted import dotted, is_dotted
from rlpipe.rewards.options import bound
from rlpipe.rewards.registry import MADE_BY_STAGES
from rlpipe.types import Task

_ROWS_AT_ONCE = 256
_OWN = ("prompt", "answer", "completion")
_STORED = ("reward_model", "process_reward_model")  # read from a folder that a stage wrote


@dataclass
class Summary:
    """What came of a file: rows, the sum of the scores there are, how often each reason for having none stands."""

    rows: int = 0
    total: float = 0.0
    missing: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        scored = self.rows - self.missing.total()
        mean = f", mean {self.total / scored:.6g}" if scored else ""
        lines = [f"{self.rows} rows: {scored} scored{mean}; {self.missing.total()} without a score"]
        return "\n".join(lines + ([f"  {told(self.missing)}"] if self.missing else []))


@dataclass(frozen=True)
class _Line:
    """A line of the input: the row's columns, and its task and completion, or why it has none."""

    columns: Mapping[str, Any]
    task: Task | None = None
    completion: str = ""
    problem: str = ""


def score_file(name: str, assignments: Sequence[str], source: Path, target: Path, root: Path) -> Summary:
    """Score each row of `source` and write `target`, the same rows in the same order with `score` and `reason`.

    Args:
        name: a verifier's name, one of _STORED, or `module:function` of a component of the user's own.
        assignments: its options, `key=value`.
        root: where the user's module is looked for first.
    Raises: ConfigError for an unknown component or option; DataError if a file cannot be read or written.
    """
    component = _component(name, assignments, root)
    if not source.is_file():
        raise DataError(f"--input {source}: no such file. Name a file of JSON lines.")
    summary = Summary()
    with _opened(source, target) as (lines, out):
        numbered = (_read(line, f"{source.name}:{number}") for number, line in enumerate(lines, start=1))
        while batch := list(islice(numbered, _ROWS_AT_ONCE)):
            for line, score in zip(batch, _scores(component, batch), strict=True):
                _count(summary, score)
                out.write(_written(line.columns, score))
    return summary


def _component(name: str, assignments: Sequence[str], root: Path) -> Component:
    options = dict(_assigned(text) for text in assignments)
    if is_dotted(name):
        return bound(dotted(name, root, "--reward"), options, f"--reward {name}")
    if name in _STORED:
        # Here and not at the top: verifiers need no torch.
        from rlpipe.stages import stored_reward_model

        return bound(getattr(stored_reward_model, f"stored_{name}"), options, f"--reward {name}")
    if name in MADE_BY_STAGES:
        raise ConfigError(
            f"--reward {name}: a stage makes it, from sections of params.yaml. `rlpipe score` takes a verifier "
            f"({', '.join(sorted(VERIFIERS))}), {', '.join(_STORED)}, or module:function."
        )
    if name not in VERIFIERS:
        raise ConfigError(f"--reward {name}: no such verifier.{nearest(name, VERIFIERS)}")
    component = bound(VERIFIERS[name], options, f"--reward {name}")
    component([], [])  # options that do not fit each other are refused by the component itself
    return component


def _assigned(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, such as max_length=200.")
    try:
        return key, YAML(typ="safe", pure=True).load(value)
    except YAMLError:
        raise ConfigError(f"--set {text}: the value is no valid YAML. Put it in quotes.") from None


@contextmanager
def _opened(source: Path, target: Path) -> Iterator[tuple[Iterable[bytes], IO[bytes]]]:
    """Both files; `target` appears, or changes, only once it is whole, so that it may be `source` itself."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with source.open("rb") as lines, part.open("wb") as out:
                yield lines, out
                out.flush()
                os.fsync(out.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}. Mend the paths of --input and --output.") from error


def _read(line: bytes, address: str) -> _Line:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return _Line({"line": line.decode("utf-8", "replace").rstrip("\n")}, problem="the line is no UTF-8 text")
    try:
        row = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return _Line({"line": text.rstrip("\n")}, problem="the line is no JSON")
    if not isinstance(row, dict):
        return _Line({"line": row}, problem=f"the line is a JSON {type(row).__name__}, not an object")
    for name in ("prompt", "completion"):
        if not isinstance(row.get(name), str):
            return _Line(row, problem=_no_text(row, name))
    answer = row.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not isinstance(answer, str):
        return _Line(row, problem=_no_text(row, "answer"))
    columns = {name: value for name, value in row.items() if name not in _OWN}
    return _Line(row, Task(str(row.get("id", address)), row["prompt"], answer or "", columns), row["completion"])


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _no_text(row: Mapping[str, Any], name: str) -> str:
    return f"column {name!r} is {type(row[name]).__name__}, not text" if name in row else f"column {name!r} is missing"


def _scores(component: Component, lines: Sequence[_Line]) -> list[float | Missing]:
    whole = [(line.task, line.completion) for line in lines if line.task is not None]
    scores = iter(component([task for task, _ in whole], [text for _, text in whole]) if whole else [])
    return [Missing(line.problem) if line.task is None else next(scores) for line in lines]


def _count(summary: Summary, score: float | Missing) -> None:
    summary.rows += 1
    if isinstance(score, Missing):
        summary.missing[score.reason] += 1
    else:
        summary.total += score


def _written(columns: Mapping[str, Any], score: float | Missing) -> bytes:
    """The row with its score. A column that is in the way keeps its value under another name."""
    row = dict(columns)
    for name in ("score", "reason"):
        if name in row:
            row[_free(f"input_{name}", row)] = row.pop(name)
    row["score"] = None if isinstance(score, Missing) else float(score)
    row["reason"] = score.reason if isinstance(score, Missing | Explained) else ""
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON may hold and UTF-8 may not
        return json.dumps(row).encode() + b"\n"


def _free(name: str, row: Mapping[str, Any]) -> str:
    return _free(f"input_{name}", row) if name in row else name
