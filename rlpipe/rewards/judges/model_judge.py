"""A judge that is a model: questions from a template, answers from file or from whoever answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from rlpipe.rewards.judges.base import JudgeError, Pair, PairVerdict, ReplayError, Verdict, Winner, by_score
from rlpipe.rewards.judges.fence import Fence
from rlpipe.rewards.judges.journal import Journal, Judgment, Outcome, content_key
from rlpipe.rewards.judges.templates import Message, OpenTemplate, Template

# What became of one question. Those that are `Outcome`s are answers; the others are none, and are asked anew in the
# next run.
Status = Literal["replied", "refused", "cut_off", "too_long", "timed_out", "rate_limited", "server_error"]
_ANSWERED: Mapping[str, Outcome] = {"replied": "replied", "refused": "refused", "cut_off": "cut_off"}
# How a question can end, as the tally counts it: `judged` is a verdict, or a text where one was asked for.
OUTCOMES = ("judged", "malformed", "refused", "too_long", "timed_out", "rate_limited", "server_error")


@dataclass(frozen=True)
class Question:
    """One thing to ask: the chat, and the template behind it, which may hold the replies that count."""

    key: str
    messages: tuple[Message, ...]
    template: Template | OpenTemplate


@dataclass(frozen=True)
class Answer:
    """What came back, or why nothing did (`detail`)."""

    status: Status
    reply: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logps: Mapping[str, float] | None = None
    detail: str = ""


@dataclass(frozen=True)
class Call:
    """One attempt at a question, for who keeps a trace of it: how many seconds it took; `attempt` counts from 1."""

    question: Question
    model: str
    answer: Answer
    seconds: float
    attempt: int


OnCall = Callable[[Call], None]


class Respondent(Protocol):
    """Who answers questions."""

    name: str  # of the model
    parameters: Mapping[str, Any]  # whatever else an answer depends on: part of every content key

    def ask(self, questions: Sequence[Question], file: Callable[[Question, Answer], None], on_call: OnCall) -> None:
        """Put all questions; call `file` with each answer as it comes, in any order, from this thread.

        Raises: JudgeDownError if nobody answers any more.
        """


@dataclass
class Tally:
    """How the questions of a judge ended, each counted once however often it was needed.

    Attributes:
        outcomes: how many ended in each way of OUTCOMES.
        attempts: calls made in this process by how they ended; a rerun from file has none.
        from_file: questions that needed no call.
        prompt_tokens, completion_tokens: of the answers used, whether from file or asked now.
        called_prompt_tokens, called_completion_tokens: of the calls made in this process.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    from_file: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    called_prompt_tokens: int = 0
    called_completion_tokens: int = 0

    @property
    def calls(self) -> int:
        """Calls made in this process. A question that a model has no room for is never put to it."""
        return self.attempts.total() - self.attempts["too_long"]

    def cost(self, prompt_price: float, completion_price: float) -> float:
        """What the answers used cost, whenever they were asked for, at prices for a million tokens."""
        return (self.prompt_tokens * prompt_price + self.completion_tokens * completion_price) / 1e6

    def cost_of_calls(self, prompt_price: float, completion_price: float) -> float:
        """What the calls made in this process cost, at the same prices: what was paid this time."""
        return (self.called_prompt_tokens * prompt_price + self.called_completion_tokens * completion_price) / 1e6


class Asker:
    """Puts questions to a respondent, each once: what is on file is not asked, and what is answered is filed.

    Args:
        respondent: who answers.
        journal: open file of judgments.
        fence: makes texts safe to show.
        outcome: how the tally calls an answer, one of OUTCOMES.
        replay: make no call; a question that is not on file is an error.
        on_call: told of each call, for traces.

    Attributes:
        tally: how its questions ended.
        used: the judgments that its answers so far are made of, by key.
    """

    def __init__(
        self,
        respondent: Respondent,
        journal: Journal,
        fence: Fence,
        outcome: Callable[[Question, Answer], str],
        *,
        replay: bool,
        on_call: OnCall | None,
    ) -> None:
        self._respondent, self._journal, self._fence, self._outcome = respondent, journal, fence, outcome
        self._replay, self._on_call = replay, on_call
        self._parameters = {**respondent.parameters, "fence": fence.fingerprint}
        self.tally = Tally()
        self.used: dict[str, Judgment] = {}

    def state_dict(self) -> dict[str, Any]:
        """What has been used so far, whole: a resumed stage does not depend on the journal's being there."""
        return {
            "used": [asdict(judgment) for judgment in self.used.values()],
            "outcomes": dict(self.tally.outcomes),
            "prompt_tokens": self.tally.prompt_tokens,
            "completion_tokens": self.tally.completion_tokens,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.used = {one["key"]: Judgment(**one) for one in state["used"]}
        self.tally.outcomes = Counter(state["outcomes"])
        self.tally.prompt_tokens, self.tally.completion_tokens = state["prompt_tokens"], state["completion_tokens"]

    def question(self, template: Template | OpenTemplate, texts: Sequence[str]) -> Question:
        """What to ask of `texts`, in the order in which the template shows them."""
        key = content_key(self._respondent.name, self._parameters, template.digest, texts)
        return Question(key, template.messages(self._fence, texts), template)

    def answers(self, questions: Iterable[Question]) -> dict[str, Answer]:
        """An answer for every key, from file where it is there; each question is put once.

        Raises: ReplayError; JudgeDownError, with everything answered so far on file.
        """
        by_key = {question.key: question for question in questions}
        new = [key for key in by_key if key not in self.used]
        open_questions = [by_key[key] for key in new if self._journal.get(key) is None]
        if self._replay and open_questions:
            raise ReplayError(
                f"judge.replay=true: {len(open_questions)} of {len(by_key)} judgments are not on file, the first "
                f"under {open_questions[0].key[:12]}, and replay makes no call. Something they depend on has changed "
                "(model, template, parameters, texts, order), or the file is not the one they were filed in. Pull it, "
                "or set replay to false."
            )
        unanswered: dict[str, Answer] = {}

        def file(question: Question, answer: Answer) -> None:
            if answer.status in _ANSWERED:
                self._journal.add(self._filed(question, answer))
            else:
                unanswered[question.key] = answer

        if open_questions:
            try:
                self._respondent.ask(open_questions, file, self._called)
            finally:
                self._journal.sync()
        answers = {key: unanswered.get(key) or _from_file(self._on_file(key)) for key in by_key}
        self._count([(by_key[key], answers[key]) for key in new], asked=len(open_questions))
        return answers

    def _filed(self, question: Question, answer: Answer) -> Judgment:
        return Judgment(
            key=question.key,
            model=self._respondent.name,
            template=question.template.digest,
            outcome=_ANSWERED[answer.status],
            reply=answer.reply,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            logps=answer.logps,
        )

    def _on_file(self, key: str) -> Judgment:
        judgment = self.used.get(key) or self._journal.get(key)
        assert judgment is not None, "a respondent files an answer to every question, or raises"
        self.used[key] = judgment
        return judgment

    def _called(self, call: Call) -> None:
        self.tally.attempts[call.answer.status] += 1
        self.tally.called_prompt_tokens += call.answer.prompt_tokens
        self.tally.called_completion_tokens += call.answer.completion_tokens
        if self._on_call is not None:
            self._on_call(call)

    def _count(self, settled: Sequence[tuple[Question, Answer]], asked: int) -> None:
        """What got no answer is put again when it is needed again, and counts again."""
        self.tally.from_file += len(settled) - asked
        for question, answer in settled:
            self.tally.outcomes[self._outcome(question, answer)] += 1
            self.tally.prompt_tokens += answer.prompt_tokens
            self.tally.completion_tokens += answer.completion_tokens


class ModelJudge(Asker):
    """An asker that reads verdicts off the replies.

    Args:
        respondent, journal, fence, replay, on_call: as in `Asker`.
        score: what is asked of one response.
        choice: what is asked of two, in both orders; None for a judge that knows scores only, whose choice is the
            higher one (with `expected` a tie is rare; without, there are as many scores as replies).
        tie_margin: of `by_score`, for a judge that knows scores only.
        expected: the score is the mean over the replies' log-probs instead of the likeliest reply's value, so that
            a local judge's doubt shows; needs a respondent that gives log-probs.
    """

    def __init__(
        self,
        respondent: Respondent,
        journal: Journal,
        fence: Fence,
        *,
        score: Template,
        choice: Template | None,
        tie_margin: float,
        replay: bool,
        expected: bool = False,
        on_call: OnCall | None = None,
    ) -> None:
        if score.is_pairwise or not (choice is None or choice.is_pairwise):
            raise JudgeError("judge: `score` needs a template with {response}, `choice` one with {first} and {second}.")
        super().__init__(respondent, journal, fence, _outcome, replay=replay, on_call=on_call)
        self._score, self._choice, self._expected = score, choice, expected
        self._tie_margin = tie_margin

    def score(self, prompt: str, response: str) -> Verdict:
        """One of `scores`. Raises: as `scores`."""
        return self.scores([(prompt, response)])[0]

    def scores(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Raises: ReplayError; JudgeDownError, with everything answered so far on file."""
        questions = [self.question(self._score, item) for item in items]
        answers = self.answers(questions)
        return [self._verdict(answers[question.key]) for question in questions]

    def choices(self, pairs: Sequence[Pair]) -> list[PairVerdict]:
        """Raises: ReplayError; JudgeDownError, with everything answered so far on file."""
        if self._choice is None:
            verdicts = self.scores([(pair.prompt, text) for pair in pairs for text in (pair.first, pair.second)])
            return [
                by_score(first, second, tie_margin=self._tie_margin)
                for first, second in zip(verdicts[::2], verdicts[1::2], strict=True)
            ]
        return self._asked_twice(pairs, self._choice)

    def _asked_twice(self, pairs: Sequence[Pair], choice: Template) -> list[PairVerdict]:
        forward = [self.question(choice, (pair.prompt, pair.first, pair.second)) for pair in pairs]
        backward = [self.question(choice, (pair.prompt, pair.second, pair.first)) for pair in pairs]
        both = list(zip(forward, backward, strict=True))
        answers = self.answers([question for orders in both for question in orders])
        return [_pair_verdict(choice, answers[ahead.key], answers[back.key]) for ahead, back in both]

    def _verdict(self, answer: Answer) -> Verdict:
        missing = _missing(self._score, answer)
        if missing:
            return Verdict(None, missing)
        if self._expected:
            return Verdict(_expected(self._score, answer))
        return Verdict(_value(self._score, answer))


def _pair_verdict(choice: Template, ahead: Answer, back: Answer) -> PairVerdict:
    orders = (("first", _missing(choice, ahead)), ("second", _missing(choice, back)))
    return PairVerdict(
        forward=_winner(_value(choice, ahead), swapped=False),
        backward=_winner(_value(choice, back), swapped=True),
        missing="; ".join(f"{order} order: {why}" for order, why in orders if why),
    )


def _from_file(judgment: Judgment) -> Answer:
    return Answer(
        status=judgment.outcome,
        reply=judgment.reply,
        prompt_tokens=judgment.prompt_tokens,
        completion_tokens=judgment.completion_tokens,
        logps=judgment.logps,
    )


def _outcome(question: Question, answer: Answer) -> str:
    if answer.status != "replied":
        return answer.status
    assert isinstance(question.template, Template), "a judge asks for verdicts"
    return "malformed" if _value(question.template, answer) is None else "judged"


def _value(template: Template, answer: Answer) -> float | None:
    """What an answer is worth; None for everything that is no verdict."""
    return template.value(answer.reply) if answer.status == "replied" else None


def _missing(template: Template, answer: Answer) -> str:
    """Why an answer is no verdict; empty where it is one."""
    if answer.status == "replied":
        return "" if _value(template, answer) is not None else f"malformed: {answer.reply[:60]!r} is no verdict"
    return f"{answer.status}: {answer.detail or answer.reply[:60] or 'no words'}"


def _winner(value: float | None, *, swapped: bool) -> Winner | None:
    """The response preferred, given how much the one shown first is."""
    if value is None:
        return None
    if value == 0.5:
        return "tie"
    return "first" if (value > 0.5) != swapped else "second"


def _expected(template: Template, answer: Answer) -> float:
    """The mean of the replies' values under the judge's own probabilities, renormalised over the replies.

    Source: arXiv:2303.16634 section 3, with exact probabilities instead of samples.
    """
    if answer.logps is None:
        raise JudgeError(
            "judge.expected=true: the judge gave no log-probs of its replies (an endpoint gives only words). "
            "Set expected to false, or kind to local."
        )
    most = max(answer.logps.values())
    # In the template's order: on file they are sorted, and sums in another order round otherwise.
    weights = {reply: math.exp(answer.logps[reply] - most) for reply in template.replies}
    return sum(template.replies[reply] * weight for reply, weight in weights.items()) / sum(weights.values())
