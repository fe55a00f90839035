"""Judges: they see a prompt and a response, never a gold answer.

`rubric` is a program. `openai` and `local` are models: `build.py` makes one from its settings. What they are asked
is a template (`templates.py`) around fenced text (`fence.py`); what they answered stays on file (`journal.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from rlpipe.rewards.judges.base import Judge, Pair, PairVerdict, Verdict
from rlpipe.rewards.judges.rubric import RubricJudge

JUDGES: Mapping[str, RubricJudge] = {
    "rubric": RubricJudge(),
}

__all__ = ["JUDGES", "Judge", "Pair", "PairVerdict", "Verdict"]
