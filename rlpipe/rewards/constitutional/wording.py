"""What a model is asked under a principle: in full sentences, or as bare as the embedded judge learns it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rlpipe.rewards.constitutional.principles import Principle
from rlpipe.rewards.judges.embedded import VERDICT
from rlpipe.rewards.judges.templates import DATA, REASON, RESPONSES, TASK, OpenTemplate, Template


@dataclass(frozen=True)
class Wording:
    """The four questions of one principle.

    Attributes:
        critique: of (prompt, response): what is wrong with it.
        revision: of (prompt, response, critique): the response rewritten.
        score: of (prompt, response).
        choice: of two responses; None for a judge that knows scores only.
    """

    critique: OpenTemplate
    revision: OpenTemplate
    score: Template
    choice: Template | None


def bare(principle: Principle) -> Wording:
    """For the embedded judge, which was taught on these very texts.

    What the reply begins from stands last, the prompt before a revision as before a response: the judge starts from a
    policy, and this is what that one can do already.
    """
    return Wording(
        critique=OpenTemplate("", f"{principle.critique} {{prompt}} {{response}}", ("prompt", "response")),
        revision=OpenTemplate(
            "", f"{{response}} {{critique}} {principle.revision} {{prompt}}", ("prompt", "response", "critique")
        ),
        score=Template("", f"{principle.question} {{prompt}} {{response}}", VERDICT.replies),
        choice=None,
    )


def spoken(principle: Principle, *, top: int, reasoned: bool) -> Wording:
    """For a model that reads English; `top` and `reasoned` as in the templates without a principle."""
    reason = REASON if reasoned else ""
    return Wording(
        critique=OpenTemplate(
            "You criticise a response to a task.\n"
            + DATA
            + "Answer with the critique alone: what is wrong, where, and why, in a few sentences; "
            "where nothing is wrong, say so.",
            TASK + _RESPONSE + principle.critique,
            ("prompt", "response"),
        ),
        revision=OpenTemplate(
            "You revise a response to a task, given a critique of it.\n"
            + DATA
            + "Answer with the whole revised response and nothing else, in the form of the response given; where "
            "the critique finds nothing wrong, with that response as it is.",
            TASK + _RESPONSE + _CRITIQUE + principle.revision,
            ("prompt", "response", "critique"),
        ),
        score=Template(
            "You grade a response to a task by one question, and by nothing else.\n"
            + DATA
            + f'Answer with one JSON object and nothing else: {{{reason}"score": N}}, where N is a whole number from '
            f"1 (not at all) to {top} (entirely).",
            TASK + _RESPONSE + f"{principle.question} From 1 to {top}:",
            {json.dumps({"score": grade}): (grade - 1) / (top - 1) for grade in range(1, top + 1)},
            reasoned,
        ),
        choice=Template(
            "You compare two responses to a task by one question, and by nothing else.\n"
            + DATA
            + f'Answer with one JSON object and nothing else: {{{reason}"choice": "A"}} if the answer to the question '
            f'is better for response A, {{{reason}"choice": "B"}} if it is for response B.',
            TASK + RESPONSES + principle.question,
            {'{"choice": "A"}': 1.0, '{"choice": "B"}': 0.0},
            reasoned,
        ),
    )


_RESPONSE = "[response {nonce}]\n{response}\n[end of response {nonce}]\n\n"
_CRITIQUE = "[critique {nonce}]\n{critique}\n[end of critique {nonce}]\n\n"
