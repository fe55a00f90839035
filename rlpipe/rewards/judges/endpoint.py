"""The `openai` judge: any OpenAI-compatible endpoint, by the openai client, which is imported when first asked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlpipe.rewards.judges.base import JudgeDownError, JudgeError
from rlpipe.rewards.judges.model_judge import Answer, Call, OnCall, Question
from rlpipe.rewards.judges.settings import Endpoint
from rlpipe.rewards.judges.templates import OpenTemplate, Template, one_turn

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_RETRIED = ("timed_out", "rate_limited", "server_error")
# How models say no in words when nothing holds them to the list of replies.
_REFUSAL = re.compile(
    r"\W*(?:i['’]?m (?:very )?sorry|sorry|i (?:am sorry|apologi[sz]e)|i(?: can(?:not|['’]?t)| am (?:unable|not able)|"
    r"['’]?m (?:unable|not able)| won['’]?t| must decline)|as an ai\b)",
    re.IGNORECASE,
)


class EndpointRespondent:
    """Asks a server, several questions at once, each until it is answered or its attempts are used up.

    Raises: JudgeError where the openai client is not installed, or the key's variable is empty.
    """

    def __init__(self, endpoint: Endpoint, seed: int) -> None:
        self._endpoint, self._seed = endpoint, seed
        self.name = endpoint.model
        self._breaker = _Breaker(endpoint)
        self.parameters: Mapping[str, Any] = {
            "kind": "openai",
            "temperature": endpoint.temperature,
            "max_tokens": endpoint.max_tokens,
            "structure": endpoint.structure,
            "system_role": endpoint.system_role,
            "extra": dict(endpoint.extra),
            "seed": seed,
        }

    def ask(self, questions: Sequence[Question], file: Callable[[Question, Answer], None], on_call: OnCall) -> None:
        """See `Respondent`.

        Raises: JudgeDownError when `breaker` questions in a row got no answer; JudgeError when the server
            refuses the request itself (a wrong key, model or field), which no retry can mend.
        """
        asyncio.run(self._ask_all(questions, file, on_call))

    async def _ask_all(
        self, questions: Sequence[Question], file: Callable[[Question, Answer], None], on_call: OnCall
    ) -> None:
        queue = iter(questions)
        async with self._client() as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._endpoint.concurrency, len(questions))):
                        group.create_task(self._work(client, queue, file, on_call))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None

    async def _work(
        self,
        client: AsyncOpenAI,
        queue: Iterator[Question],  # shared by all workers: each question is taken once
        file: Callable[[Question, Answer], None],
        on_call: OnCall,
    ) -> None:
        for question in queue:
            answer = await self._insist(client, question, on_call)
            file(question, answer)
            self._breaker.saw(answer)

    async def _insist(self, client: AsyncOpenAI, question: Question, on_call: OnCall) -> Answer:
        """The answer, or the last attempt's failure."""
        attempts = self._endpoint.retries + 1
        for attempt in range(1, attempts + 1):
            start = time.monotonic()
            answer, retry_after_s = await self._attempt(client, question)
            on_call(Call(question, self.name, answer, time.monotonic() - start, attempt))
            if answer.status not in _RETRIED or attempt == attempts:
                return answer
            await asyncio.sleep(max(self._pause_s(question, attempt), retry_after_s))
        raise AssertionError("at least one attempt is made")

    async def _attempt(self, client: AsyncOpenAI, question: Question) -> tuple[Answer, float]:
        """One call, and how long the server asks to wait before the next."""
        import openai

        try:
            # The client's own limit starts anew with every byte that trickles in; this one does not.
            async with asyncio.timeout(self._endpoint.timeout_s):
                completion = await client.chat.completions.create(**self._request(question))
        except (TimeoutError, openai.APITimeoutError):
            return Answer("timed_out", detail=f"no reply within {self._endpoint.timeout_s:g} s"), 0.0
        except openai.RateLimitError as error:
            return Answer("rate_limited", detail=_one_line(error)), self._asked_to_wait_s(error)
        except openai.APIStatusError as error:
            return self._refused_or_failed(error), self._asked_to_wait_s(error)
        except (openai.APIError, ValueError) as error:  # no connection, or a body that is no JSON
            return Answer("server_error", detail=_one_line(error)), 0.0
        return _read(completion, is_open=isinstance(question.template, OpenTemplate)), 0.0

    def _request(self, question: Question) -> dict[str, Any]:
        endpoint = self._endpoint
        extra = dict(endpoint.extra)
        folded = [{"role": "user", "content": one_turn(question.messages)}]
        request: dict[str, Any] = {
            "model": endpoint.model,
            "messages": list(question.messages) if endpoint.system_role else folded,
            "seed": self._seed,
            endpoint.token_field: endpoint.max_tokens,
        }
        if endpoint.temperature is not None:
            request["temperature"] = endpoint.temperature
        template = question.template
        if endpoint.structure == "json_schema" and isinstance(template, Template):
            schema = {"name": "verdict", "strict": True, "schema": template.schema()}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif endpoint.structure == "choice" and isinstance(template, Template):
            extra["structured_outputs"] = {"choice": list(template.replies)}
        return {**request, "extra_body": extra}

    def _refused_or_failed(self, error: Any) -> Answer:
        if error.status_code >= 500:
            return Answer("server_error", detail=_one_line(error))
        if error.status_code == 408:
            return Answer("timed_out", detail=_one_line(error))
        if getattr(error, "code", None) == "content_filter":
            return Answer("refused", _one_line(error))
        raise JudgeError(
            f"judge.endpoint {self._endpoint.base_url}, model {self._endpoint.model!r}: the server refuses the "
            f"request with status {error.status_code}: {_one_line(error)}. No retry can mend that: check model, "
            f"structure={self._endpoint.structure}, token_field and the key in {self._endpoint.api_key_env}."
        )

    def _pause_s(self, question: Question, attempt: int) -> float:
        """Doubling, shortened by up to half: questions that failed together do not come back together."""
        whole = min(self._endpoint.backoff_s * 2 ** (attempt - 1), self._endpoint.backoff_limit_s)
        digest = hashlib.sha256(f"{question.key}:{attempt}".encode()).digest()
        return whole * (1 - int.from_bytes(digest[:4], "big") / 2**33)

    def _asked_to_wait_s(self, error: Any) -> float:
        """The server's `Retry-After` in seconds, as far as we are ready to wait; dates are not understood."""
        try:
            asked = float(error.response.headers.get("retry-after", "0"))
        except ValueError:
            return 0.0
        return min(max(asked, 0.0), self._endpoint.backoff_limit_s)

    def _client(self) -> AsyncOpenAI:
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise JudgeError(
                "judge.kind=openai needs the openai client, which is not installed. Run `pip install openai`."
            ) from None
        variable = self._endpoint.api_key_env
        key = "none" if variable is None else os.environ.get(variable, "")
        if not key:
            raise JudgeError(f"judge.api_key_env={variable}: the environment has no such variable. Export it.")
        return AsyncOpenAI(
            base_url=self._endpoint.base_url,
            api_key=key,
            timeout=self._endpoint.timeout_s,
            max_retries=0,  # each attempt is ours to count
        )


class _Breaker:
    """Stops a run whose server is gone, instead of wearing out every question's retries against it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._answered = self._in_a_row = 0

    def saw(self, answer: Answer) -> None:
        if answer.status not in _RETRIED:
            self._answered += 1
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row >= self._endpoint.breaker:
            raise JudgeDownError(
                f"judge.endpoint {self._endpoint.base_url}: {self._in_a_row} questions in a row got no answer after "
                f"{self._endpoint.retries + 1} attempts each, the last: {answer.status} ({answer.detail}). "
                f"The {self._answered} questions answered before are on file; none was scored without an answer. "
                "Mend the server and run again: only what is missing is asked."
            )


def _read(completion: Any, *, is_open: bool) -> Answer:
    """The first choice of a chat completion. A body of another shape is the server's error, not the model's.

    A verdict that the token limit ended is still read, strictly; a text (`is_open`) that it ended is half a text.
    """
    choice: Any = next(iter(getattr(completion, "choices", None) or ()), None)
    message = getattr(choice, "message", None)
    if message is None:
        return Answer("server_error", detail=f"the body is no chat completion: {str(completion)[:80]!r}")
    usage = getattr(completion, "usage", None)
    words, refusal = message.content or "", getattr(message, "refusal", None)
    is_refusal = refusal or choice.finish_reason == "content_filter" or _REFUSAL.match(words)
    is_cut = is_open and choice.finish_reason == "length"
    return Answer(
        status="refused" if is_refusal else "cut_off" if is_cut else "replied",
        reply=refusal or words,
        prompt_tokens=getattr(usage, "prompt_tokens", None) or 0,
        completion_tokens=getattr(usage, "completion_tokens", None) or 0,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
