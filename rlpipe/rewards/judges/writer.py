"""Free text from the model that judges: asked, filed and replayed as verdicts are, and never silently empty."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpipe.rewards.judges.fence import Fence
from rlpipe.rewards.judges.journal import Journal
from rlpipe.rewards.judges.local import Encode
from rlpipe.rewards.judges.model_judge import Answer, Asker, Call, OnCall, Question, Respondent
from rlpipe.rewards.judges.templates import OpenTemplate, one_turn
from rlpipe.types import Completion, Request

# Completions for requests, in their order; whoever builds the writer has an engine.
Generate = Callable[[Sequence[Request]], Sequence[Completion]]


@dataclass(frozen=True)
class Written:
    """A text with something in it, or None and the reason why there is none."""

    text: str | None
    missing: str = ""

    def __post_init__(self) -> None:
        assert (self.text is None) == bool(self.missing), "there is a text or a reason, never both"


class Writer(Asker):
    """An asker that has a template's texts written.

    Args: as in `Asker`; the journal may be the judge's own.
    """

    def __init__(
        self,
        respondent: Respondent,
        journal: Journal,
        fence: Fence,
        *,
        replay: bool,
        on_call: OnCall | None = None,
    ) -> None:
        super().__init__(respondent, journal, fence, _outcome, replay=replay, on_call=on_call)

    def write(self, asked: Sequence[tuple[OpenTemplate, Sequence[str]]]) -> list[Written]:
        """One text for each (template, its texts), in order; asked together, the same thing once.

        Raises: ReplayError; JudgeDownError, with everything answered so far on file.
        """
        questions = [self.question(template, texts) for template, texts in asked]
        answers = self.answers(questions)
        return [_written(answers[question.key]) for question in questions]


class LocalWriter:
    """A respondent that generates: a causal language model in this process.

    Unlike `LocalRespondent` it answers in batches, since texts take a forward pass a token: what else is asked may
    round a logit differently in its last bit. The most likely token is hardly ever decided there, and at another
    temperature each question draws from a random stream of its own, addressed by its key.

    Args:
        generate: the engine, with its way of sampling.
        name: what identifies the weights, such as the hash of the folder they were loaded from.
        encode_prompt: text of one user turn to ids, up to where the assistant begins to speak.
        decode: ids of what the assistant said to text, without control tokens.
        sampling: whatever a text depends on beside the question, such as the temperature: part of the content key.
        max_prompt: tokens of a question that leave room for the reply.
        seed: of the random streams.
    """

    def __init__(
        self,
        generate: Generate,
        name: str,
        *,
        encode_prompt: Encode,
        decode: Callable[[Sequence[int]], str],
        sampling: Mapping[str, Any],
        max_prompt: int,
        seed: int,
    ) -> None:
        self._generate, self.name = generate, name
        self._encode_prompt, self._decode = encode_prompt, decode
        self._max_prompt, self._seed = max_prompt, seed
        self.parameters: Mapping[str, Any] = {
            "kind": "local writer",
            "max_prompt": max_prompt,
            "seed": seed,
            **sampling,
        }

    def ask(self, questions: Sequence[Question], file: Callable[[Question, Answer], None], on_call: OnCall) -> None:
        """See `Respondent`. A question that the model has no room for gets no answer: cut, it would be another."""
        requests = {question.key: self._request(question) for question in questions}
        fitting = [question for question in questions if len(requests[question.key].prompt_ids) <= self._max_prompt]
        start = time.monotonic()
        completions = self._generate([requests[question.key] for question in fitting]) if fitting else []
        seconds = (time.monotonic() - start) / max(1, len(fitting))
        drawn = {question.key: completion for question, completion in zip(fitting, completions, strict=True)}
        for question in questions:
            answer = self._answer(requests[question.key], drawn.get(question.key))
            on_call(Call(question, self.name, answer, seconds, attempt=1))
            file(question, answer)

    def _answer(self, request: Request, completion: Completion | None) -> Answer:
        if completion is None:
            needed = f"the question takes {len(request.prompt_ids)} tokens"
            return Answer("too_long", detail=f"{needed}, and the judge has room for {self._max_prompt} beside a reply")
        return Answer(
            status="replied" if completion.finished else "cut_off",
            reply=self._decode(completion.ids),
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=len(completion.ids),
        )

    def _request(self, question: Question) -> Request:
        ids = tuple(self._encode_prompt(one_turn(question.messages)))
        step, prompt, sample = (int(question.key[at : at + 12], 16) for at in (0, 12, 24))
        return Request(ids, (self._seed, step, prompt, sample))


def _outcome(question: Question, answer: Answer) -> str:  # noqa: ARG001 - as a verdict's outcome
    if answer.status == "cut_off":
        return "malformed"
    if answer.status != "replied":
        return answer.status
    return "judged" if answer.reply.strip() else "malformed"


def _written(answer: Answer) -> Written:
    match answer.status:
        case "replied" if answer.reply.strip():
            return Written(answer.reply.strip())
        case "replied":
            return Written(None, "malformed: the reply is empty")
        case "cut_off":
            return Written(None, f"malformed: cut off after {answer.completion_tokens} tokens")
        case status:
            return Written(None, f"{status}: {answer.detail or answer.reply[:60] or 'no words'}")
