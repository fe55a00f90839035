"""The constitution: principles in words, read from a file, and which of them has its turn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rlpipe.errors import ConfigError, nearest
from rlpipe.rewards.constitutional.working import INSPECTIONS


@dataclass(frozen=True)
class Principle:
    """One principle.

    Attributes:
        name: how records and tables call it.
        critique: what to look for in a response.
        revision: how to rewrite the response, given the critique.
        question: what is asked of a response where responses are compared; yes is better.
        lesson: the inspection by which a program teaches it to the embedded judge; None where no program can.
    """

    name: str
    critique: str
    revision: str
    question: str
    lesson: str | None = None


_WORDS = ("name", "critique", "revision", "question")


def read_principles(path: Path) -> tuple[Principle, ...]:
    """The principles of a YAML file, in its order.

    Raises: ConfigError naming the file, the principle and the key that breaks a rule.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file. constitution.principles names a file of principles; write it.")
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {error}") from None
    rows = raw.get("principles") if isinstance(raw, Mapping) else None
    if not isinstance(rows, list) or not rows or set(raw) != {"principles"}:
        raise ConfigError(f"{path}: expected one key, `principles:`, with a list of at least one principle.")
    principles = tuple(_principle(row, f"{path}: principle {number}") for number, row in enumerate(rows, start=1))
    names = [principle.name for principle in principles]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: two principles are called {twice[0]!r}; records name a principle. Rename one.")
    return principles


def _principle(row: Any, where: str) -> Principle:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{where}: expected {', '.join(_WORDS)}, not {type(row).__name__}.")
    known = [field.name for field in fields(Principle)]
    if unknown := [str(key) for key in row if key not in known]:
        raise ConfigError(f"{where}: {unknown[0]}: unknown key.{nearest(unknown[0], known)}")
    for key in _WORDS:
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{where}: {key}={value!r}: it must be a text with something in it. Write it.")
        if "{" in value or "}" in value:
            raise ConfigError(f"{where}: {key}: braces stand for texts in templates. Write it without.")
    lesson = row.get("lesson")
    if lesson is not None and lesson not in INSPECTIONS:
        raise ConfigError(f"{where}: lesson={lesson!r}: no program teaches that.{nearest(str(lesson), INSPECTIONS)}")
    return Principle(**{key: row[key].strip() for key in _WORDS}, lesson=lesson)


def refuse_untaught(principles: Sequence[Principle], source: str, at: str) -> None:
    """The embedded judge knows what it was taught, and a program teaches it, on the arithmetic task alone.

    Raises: ConfigError. `at` is the key that brings judge and principles together.
    """
    if source != "arithmetic":
        raise ConfigError(
            f"{at}: judge.kind is embedded, and only data.source=arithmetic has a program that can teach it to "
            f"criticise; this is {source}. Set judge.kind to openai or local."
        )
    for principle in principles:
        if principle.critique == principle.question:
            raise ConfigError(
                f"{at}: judge.kind is embedded, and critique and question of principle {principle.name!r} are the same "
                "words, so it cannot know whether to criticise or to say yes or no. Change one of them."
            )
    untaught = [principle.name for principle in principles if principle.lesson is None]
    if untaught:
        raise ConfigError(
            f"{at}: judge.kind is embedded, and principle {untaught[0]!r} has no lesson to teach it by. Add "
            f"`lesson:` (one of {', '.join(INSPECTIONS)}), remove the principle, or set judge.kind to openai or local."
        )


def turn(principles: Sequence[Principle], seed: int, prompt: str, number: int) -> Principle:
    """The principle of a prompt's round `number` (from 0): all have a turn before one has its second.

    Drawn by a hash of seed, prompt and name: neither the order of the prompts nor what else is asked matters, and one
    principle more or less leaves the others' order as it was.
    """
    order = sorted(principles, key=lambda principle: _rank(seed, prompt, principle.name))
    return order[number % len(order)]


def _rank(seed: int, prompt: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}\n{prompt}".encode("utf-8", "surrogatepass")).digest()
