"""The judge, and how it is called."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rlpipe.config.schema.fields import Count, CountOrZero, NonNegative, Positive, Section


class JudgeRequest(Section):
    """What an OpenAI-compatible server is asked for; see `rewards.judges.settings.Endpoint`."""

    model: str
    temperature: NonNegative | None
    max_tokens: Count
    token_field: Literal["max_tokens", "max_completion_tokens"]
    structure: Literal["json_schema", "choice", "none"]
    system_role: bool
    extra: dict[str, Any]


class Judge(Section):
    """All that a judgment depends on.

    Attributes:
        kind: `embedded` is models/judge, which the stage `judge` trains; `local` any causal language model; `openai`
            a server; `rubric` a program; `none` for a run that asks nobody.
        name_or_path: of the local judge, a hub id or a folder.
        engine: what runs the local judge's model in this process.
        openai: of the judge behind a server; where and how it is called stands in `judge_calls`.
        tie_margin: scores no further apart than this are a tie, where a judge that knows scores only (embedded, rubric)
            compares two responses.
        known: a folder of files of judgments made elsewhere.
    """

    kind: Literal["embedded", "local", "openai", "rubric", "none"]
    name_or_path: str | None
    engine: Literal["transformers", "vllm"]
    openai: JudgeRequest | None
    fence_key: str
    reasoned: bool
    top: Annotated[int, Field(ge=2)]
    tie_margin: Annotated[float, Field(ge=0, lt=1)]
    known: str
    canary_prompts: CountOrZero

    @model_validator(mode="after")
    def _kind_has_what_it_needs(self) -> Judge:
        if self.kind == "local" and self.name_or_path is None:
            raise ValueError("kind local needs name_or_path, a hub id or a folder; set it")
        if self.kind == "openai" and self.openai is None:
            raise ValueError("kind openai needs the section openai (model, temperature, ...); set it")
        if self.engine == "vllm" and self.kind != "local":
            raise ValueError(f"engine vllm runs a local judge, and kind is {self.kind}; set engine transformers")
        if self.tie_margin > 0 and self.kind not in ("embedded", "rubric"):
            raise ValueError(
                f"tie_margin {self.tie_margin:g} is for a judge that knows scores only (embedded, rubric), and kind is "
                f"{self.kind}; set 0.0"
            )
        return self


class JudgeCalls(Section):
    """How a judge is called: nothing here changes what it answers. See `rewards.judges.settings.Endpoint`."""

    replay: bool
    trace: bool
    base_url: str | None
    api_key_env: str | None
    concurrency: Count
    timeout_s: Positive
    retries: CountOrZero
    backoff_s: NonNegative
    backoff_limit_s: NonNegative
    breaker: Count
    prompt_price: NonNegative
    completion_price: NonNegative
