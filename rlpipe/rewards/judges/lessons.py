"""What the embedded judge is taught: questions, and the replies that a program knows to be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rlpipe.rewards.judges.templates import Template

LessonKind = Literal["verdict", "principle", "critique", "revision"]

# Asked as bare as can be: a judge of a few characters' vocabulary has no room for instructions, and needs none,
# since it was taught on this very text.
YES_OR_NO = {"1": 1.0, "0": 0.0}
VERDICT = Template(system="", user="{prompt} {response}", replies=YES_OR_NO)


@dataclass(frozen=True)
class Lesson:
    """One thing to learn: say `reply` to `question`, both as text, through the chat template."""

    kind: LessonKind
    question: str
    reply: str


@dataclass(frozen=True)
class Example:
    """A response of the policy, and whether the verifier lets it pass."""

    prompt: str
    response: str
    right: bool


def verdict_lessons(examples: Iterable[Example]) -> list[Lesson]:
    """One a response: 1 where it is right, 0 where it is not."""
    return [
        Lesson("verdict", f"{example.prompt} {example.response}", "1" if example.right else "0") for example in examples
    ]
