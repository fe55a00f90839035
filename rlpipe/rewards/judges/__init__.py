"""Judges: they see a prompt and a response, never a gold answer. One file a judge, one line in JUDGES."""

from __future__ import annotations

from collections.abc import Mapping

from rlpipe.rewards.judges.base import Judge, Verdict
from rlpipe.rewards.judges.rubric import RubricJudge

JUDGES: Mapping[str, Judge] = {
    "rubric": RubricJudge(),
}

__all__ = ["JUDGES", "Judge", "Verdict"]
