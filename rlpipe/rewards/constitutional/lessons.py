"""What the embedded judge is taught of the constitution: questions, and replies that a program knows to be right."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlpipe.rewards.constitutional.faults import faulty
from rlpipe.rewards.constitutional.principles import Principle
from rlpipe.rewards.constitutional.wording import Wording, bare
from rlpipe.rewards.constitutional.working import inspect
from rlpipe.rewards.judges.fence import Fence
from rlpipe.rewards.judges.templates import OpenTemplate, Template, one_turn

LessonKind = Literal["principle", "critique", "revision"]
_PLANTED = 0.5  # share of responses that get a fault; without, a policy's rarer faults would hardly be seen
_TO_THE_POINT = 0.5  # share of these whose fault is the one that the principle is about


@dataclass(frozen=True)
class Lesson:
    """One thing to learn: say `reply` to `question`. `is_fault` where the response breaks the principle."""

    kind: LessonKind
    principle: str
    question: str
    reply: str
    is_fault: bool


def lessons(
    responses: Iterable[tuple[str, str]], principles: Sequence[Principle], fence: Fence, *, planted: bool, seed: int
) -> list[Lesson]:
    """Three for each (prompt, response), under a principle drawn for it: verdict, critique and revision.

    Args:
        responses: of the policy that is to be criticised; their prompts are chains.
        principles: each with a lesson.
        planted: put a fault of a known kind in place of half of the responses; False shows the policy's own alone.
        seed: of the draws.
    """
    worded = {principle.name: bare(principle) for principle in principles}
    taught: list[Lesson] = []
    for number, (prompt, response) in enumerate(responses):
        generator = random.Random(f"lessons:{seed}:{number}")
        principle = generator.choice(principles)
        assert principle.lesson is not None, "refuse_untaught sees to it"
        if planted and generator.random() < _PLANTED:
            to_the_point = generator.random() < _TO_THE_POINT
            fault = principle.lesson if to_the_point else generator.choice(_kinds(principles))
            response = faulty(fault, prompt, generator)
        taught += _three(principle.name, principle.lesson, worded[principle.name], fence, prompt, response)
    return taught


def _three(name: str, item: str, wording: Wording, fence: Fence, prompt: str, response: str) -> list[Lesson]:
    found = inspect(item, prompt, response)
    fault = not found.is_clean

    def lesson(kind: LessonKind, template: Template | OpenTemplate, texts: Sequence[str], reply: str) -> Lesson:
        return Lesson(kind, name, one_turn(template.messages(fence, texts)), reply, fault)

    return [
        lesson("principle", wording.score, (prompt, response), "0" if fault else "1"),
        lesson("critique", wording.critique, (prompt, response), found.critique),
        lesson("revision", wording.revision, (prompt, response, found.critique), found.corrected),
    ]


def _kinds(principles: Sequence[Principle]) -> list[str]:
    return [principle.lesson for principle in principles if principle.lesson is not None]
