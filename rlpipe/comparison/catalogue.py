"""`rlpipe algos`: the table of all algorithms, and the card of one with its section of params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rlpipe.algos import ALGOS
from rlpipe.algos.base import Algo, PolicyAlgo, PreferenceAlgo, SectionAlgo, StageAlgo
from rlpipe.algos.choices import choices_of
from rlpipe.algos.sections import section
from rlpipe.config.edit import policies_text
from rlpipe.config.schema import Recipe
from rlpipe.errors import ConfigError, nearest

_WIDTH = 110


def table() -> str:
    """Every algorithm on a line: its kind, what it cannot do without, its source."""
    rows = [("algorithm", "kind", "needs", "source")]
    rows += [(name, _kind(algo), ", ".join(algo.requires), algo.source) for name, algo in ALGOS.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )


def card(name: str, recipe: Recipe) -> str:
    """One algorithm: a section that can be pasted into params.yaml as it stands, its choices as comments.

    Raises: ConfigError for a name that is no algorithm.
    """
    algo = ALGOS.get(name)
    if algo is None:
        raise ConfigError(f"algorithm {name!r}: unknown.{nearest(name, ALGOS)}")
    head = [f"# {name}: {_kind(algo)}. Needs {', '.join(algo.requires)}.", f"# Source: {algo.source}"]
    if isinstance(algo, StageAlgo):
        return "\n".join([
            *head,
            f"# A stage of its own: `{algo.stage}` in dvc.yaml, with the section `{algo.stage}:` of params.yaml.",
            *(f"# {number}: {value} is what its source recommends." for number, value in algo.recommended.items()),
        ])  # fmt: skip
    text = policies_text({name: section(name, recipe)})
    return "\n".join([*head, "", text.rstrip(), "", *_choices(algo)])


def _choices(algo: SectionAlgo) -> Iterator[str]:
    """What the algorithm chose, and what may stand in its place as a key of the section."""
    yield "# Its choices, each with what a key of that name in the section may put in its place:"
    for key, valid in choices_of(algo).items():
        chosen = _chosen(algo, key)
        yield f"# {key}: {chosen}"
        line = "#    "
        for other in (name for name in valid if name != chosen):
            if len(line) + len(other) > _WIDTH:
                yield line
                line = "#    "
            line += f" {other}"
        yield line


def _chosen(algo: SectionAlgo, key: str) -> str:
    choice: Any
    if isinstance(algo, PolicyAlgo) and key.startswith("kl_"):
        choice = getattr(algo.kl, key.removeprefix("kl_"))
    else:
        choice = getattr(algo, key)
    if choice is None:
        return "none"
    return _name(choice)


def _name(choice: str | Callable[..., Any]) -> str:
    return choice if isinstance(choice, str) else choice.__name__


def _kind(algo: Algo) -> str:
    if isinstance(algo, StageAlgo):
        return "stage"
    if isinstance(algo, PolicyAlgo):
        return "policy gradient"
    return "preference" if isinstance(algo, PreferenceAlgo) else "distillation"
