"""What a judge that is a model needs to know: the proposed `judge:` section of `params.yaml`, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# How a reply is held to the closed list: by the server, or only by reading it strictly.
Structure = Literal["json_schema", "choice", "none"]


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and how to deal with it.

    Attributes:
        base_url: such as `http://127.0.0.1:8000/v1`. No part of a judgment's key: a model may move.
        model: the name that the server knows it by.
        api_key_env: the environment variable that holds the key; None for a server that wants none.
        temperature: None leaves it out of the request, for models that refuse it.
        max_tokens: of a reply.
        token_field: how the server calls that limit.
        structure: json_schema (`response_format`), choice (vLLM's `structured_outputs`), none.
        system_role: send the instructions as a system turn; where a model's chat template knows none (Gemma's), false
            puts them before the question.
        extra: further fields of the request, as the server knows them.
        concurrency: questions in flight at once.
        timeout_s: for one attempt, from first byte sent to last byte read.
        retries: further attempts after the first, on time-out, 429, 5xx and lost connections.
        backoff_s: before the first retry; doubled for each further one, up to `backoff_limit_s`.
        breaker: questions in a row that got no answer after all their retries; then the run stops.
        prompt_price, completion_price: for a million tokens, in any one currency.
    """

    base_url: str
    model: str
    api_key_env: str | None
    temperature: float | None
    max_tokens: int
    token_field: Literal["max_tokens", "max_completion_tokens"]
    structure: Structure
    system_role: bool
    extra: Mapping[str, Any]
    concurrency: int
    timeout_s: float
    retries: int
    backoff_s: float
    backoff_limit_s: float
    breaker: int
    prompt_price: float
    completion_price: float


@dataclass(frozen=True)
class Judging:
    """What holds for every model judge.

    Attributes:
        seed: sent with each question where the server takes one; part of the key.
        fence_key: of the nonces; see `fence.Fence`.
        journal: where judgments are filed while running. Outside of the stage's outputs, which DVC deletes before
            it runs the stage.
        known: files of judgments that DVC versions, read before anything is asked.
        replay: make no call.
        reasoned: let the judge say why, in the JSON object, before its verdict.
        top: the best score; the worst is 1.
        tie_margin: scores no further apart than this are a tie, for a judge that knows scores only.
    """

    seed: int
    fence_key: str
    journal: Path
    known: tuple[Path, ...]
    replay: bool
    reasoned: bool
    top: int
    tie_margin: float
