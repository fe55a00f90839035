"""Critique and revision in rounds, every step's text kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlpipe.rewards.constitutional.principles import Principle, turn
from rlpipe.rewards.constitutional.wording import Wording
from rlpipe.rewards.judges.templates import OpenTemplate
from rlpipe.rewards.judges.writer import Written


@dataclass(frozen=True)
class Draft:
    """A task's prompt and a response to it, before anybody criticised it."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Round:
    """One critique and the revision it led to.

    Attributes:
        principle: its name.
        critique, revision: empty where there is none, which `missing` then explains.
    """

    principle: str
    critique: str
    revision: str
    missing: str = ""


@dataclass(frozen=True)
class Revised:
    """A draft with all its rounds. It ends early at a round that lacks a text: nothing is revised by no critique."""

    draft: Draft
    rounds: tuple[Round, ...]

    @property
    def missing(self) -> str:
        """Why the last round is not whole; empty where it is."""
        return self.rounds[-1].missing if self.rounds else ""

    @property
    def texts(self) -> list[str]:
        """The response as it was at first and after each whole round."""
        return [self.draft.response, *(one.revision for one in self.rounds if not one.missing)]


class Writes(Protocol):
    """What a `Writer` does."""

    def write(self, asked: Sequence[tuple[OpenTemplate, Sequence[str]]]) -> list[Written]: ...


def revised(
    drafts: Sequence[Draft],
    writer: Writes,
    principles: Sequence[Principle],
    wording: Callable[[Principle], Wording],
    *,
    rounds: int,
    seed: int,
) -> list[Revised]:
    """Every draft through `rounds` rounds, each under the principle whose turn it is; all drafts of a round together.

    Source: arXiv:2212.08073 section 3.1; there the principles are drawn with replacement.
    Raises: ReplayError; JudgeDownError, with everything written so far on file.
    """
    words = {principle.name: wording(principle) for principle in principles}
    made: list[list[Round]] = [[] for _ in drafts]
    texts = [draft.response for draft in drafts]
    for number in range(rounds):
        going = [at for at, own in enumerate(made) if not (own and own[-1].missing)]
        names = [turn(principles, seed, drafts[at].prompt, number).name for at in going]
        critiques = writer.write(
            [(words[name].critique, (drafts[at].prompt, texts[at])) for at, name in zip(going, names, strict=True)]
        )
        heard = [
            (at, name, critique.text)
            for at, name, critique in zip(going, names, critiques, strict=True)
            if critique.text is not None
        ]
        revisions = writer.write(
            [(words[name].revision, (drafts[at].prompt, texts[at], critique)) for at, name, critique in heard]
        )
        for at, name, critique in zip(going, names, critiques, strict=True):
            if critique.text is None:
                made[at].append(Round(name, "", "", f"critique {critique.missing}"))
        for (at, name, said), revision in zip(heard, revisions, strict=True):
            if revision.text is None:
                made[at].append(Round(name, said, "", f"revision {revision.missing}"))
            else:
                made[at].append(Round(name, said, revision.text))
                texts[at] = revision.text
    return [Revised(draft, tuple(own)) for draft, own in zip(drafts, made, strict=True)]
