"""From findings to text: one HTML page that loads nothing from elsewhere, and the same as markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rlpipe.stages.reporting import plots
from rlpipe.stages.reporting.findings import Findings
from rlpipe.stages.reporting.watched import WORDS

VERDICTS = {
    "": "",
    "above": "above, disjoint",
    "overlaps": "not disjoint",
    "below": "below, disjoint",
}
_MARKDOWN_CHARACTERS = 400


def html(findings: Findings, svgs: Mapping[str, str]) -> str:
    """The page; `svgs` by the names `accuracy`, `reward_vs_kl` and, where there is one, `reward_hacking`."""
    pictures = {name: Markup(svg) for name, svg in svgs.items()}
    return _environment(autoescape=True).get_template("report.html").render(_words(findings), svg=pictures)


def markdown(findings: Findings) -> str:
    """The same in markdown, its pictures beside it."""
    return _environment(autoescape=False).get_template("report.md").render(_words(findings))


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=_percent, points=_points, number=_number, cell=_cell)
    return environment


def _words(findings: Findings) -> dict[str, object]:
    return {
        "f": findings,
        "verdicts": VERDICTS,
        "splits": _under("split/", findings.prepared),
        "quarantined": _under("quarantine/", findings.prepared),
        "colours": plots.COLOURS,
        "readings": WORDS,
    }


def _under(prefix: str, numbers: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(difference: float) -> str:
    """Percentage points with their sign, a true minus among them."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}".replace("-", "−")


def _cell(text: str) -> str:
    """Text as code inside a markdown table: on one line, cut where it is long, and said to be."""
    line = re.sub(r"\s+", " ", text).replace("|", "\\|").replace("`", "'").strip()
    return f"{line[:_MARKDOWN_CHARACTERS]} … (cut)" if len(line) > _MARKDOWN_CHARACTERS else line
