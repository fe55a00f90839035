"""The report's page of the constitution: every step's text, in both forms, and nothing of a model's text as markup."""

from __future__ import annotations

import pytest

from rlpipe.stages.reporting.constitutional import Constitutional, Example, PrincipleRow, RoundRow, Shown
from rlpipe.stages.reporting.page import _environment

FOUND = Constitutional(
    principles=(PrincipleRow("terms", "Which term?", "Use all.", "Used?", None),),
    rounds=(RoundRow(0, 64, 0.25, 0.2, 0.3, None), RoundRow(1, 63, 0.5, 0.4, 0.6, 0.375)),
    missing={"critique_malformed": 1},
    demonstrations=63,
    examples=(
        Example(
            "t:1",
            "6-2+1",
            "<b>draft</b>",
            False,
            (
                Shown("terms", "+1 is left out.", "4+1=5", "", True),
                Shown("terms", "", "", "critique refused: no", None),
            ),
        ),
    ),
)


@pytest.mark.parametrize("form", ["html", "md"])
def test_every_step_is_shown(form: str) -> None:
    text = _environment(autoescape=form == "html").get_template(f"constitution.{form}").render(c=FOUND)
    for said in ("terms", "Which term?", "Use all.", "Used?", "6-2+1", "+1 is left out.", "4+1=5", "critique refused"):
        assert said in text, said
    for number in ("25.0", "20.0 – 30.0", "50.0", "40.0 – 60.0", "37.5", "63", "1 ended early (critique malformed)"):
        assert number in text, number
    assert text.count("✗") == text.count("✓") == 1
    assert ("<b>draft</b>" in text) == (form == "md")
