"""The judge of params.yaml, open while a stage asks it. What it said is an output of the stage: its judgments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlpipe.checkpoint.store import Stateful
from rlpipe.config import Params
from rlpipe.config.schema import JudgeCalls
from rlpipe.dataio.chat import prompt_ids, response_ids
from rlpipe.dataio.tokenizers import load as load_tokenizer
from rlpipe.errors import ConfigError
from rlpipe.lineage import digest
from rlpipe.models.load import load_policy
from rlpipe.rewards.judges import JUDGES, Judge
from rlpipe.rewards.judges.build import endpoint_judge, local_judge
from rlpipe.rewards.judges.embedded import VERDICT
from rlpipe.rewards.judges.journal import write_judgments
from rlpipe.rewards.judges.local import LocalRespondent, live
from rlpipe.rewards.judges.model_judge import OUTCOMES, Call, ModelJudge, OnCall, Tally
from rlpipe.rewards.judges.settings import Endpoint, Judging
from rlpipe.rewards.judges.templates import Template, choice_template, score_template
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import Bench
from rlpipe.tracking import Tracker
from rlpipe.types import Sampling

if TYPE_CHECKING:
    from rlpipe.rollout.vllm_engine import VLLMEngine

EMBEDDED = "models/judge"


class Tallied(Protocol):
    """Whoever counts how its questions ended."""

    @property
    def tally(self) -> Tally: ...


@dataclass(frozen=True)
class Asked:
    """The judge while a stage runs.

    Attributes:
        judge: None where the stage asks nobody.
        states: what belongs into the stage's checkpoints, so that a resumed stage knows what it had used.
        counts: how the questions ended so far, by metric key.
    """

    judge: Judge | None
    states: Mapping[str, Stateful] = field(default_factory=dict)
    counts: Callable[[], dict[str, float]] = dict


@contextmanager
def asking(work: Bench, *, needed: bool) -> Iterator[Asked]:
    """The judge, its journal open; if the block ends well, the judgments used are the stage's output.

    Raises: JudgeError, ConfigError, ModelError for a judge that cannot be asked.
    """
    output = work.stage.path(judgments_of(work.stage))
    kind, tie_margin = work.stage.params.judge.kind, work.stage.params.judge.tie_margin
    if not needed or kind in JUDGES:
        yield Asked(replace(JUDGES[kind], tie_margin=tie_margin) if needed else None)
        write_judgments(output, ())
        return
    with _OPEN[kind](work) as judge:
        yield Asked(judge, {"judge": judge}, partial(counts, judge))
        write_judgments(output, judge.used.values())


def judgments_of(stage: Stage) -> str:
    """Where dvc.yaml expects the judgments that a stage used."""
    return f"data/judgments/{stage.name}/{stage.item}.jsonl" if stage.item else f"data/judgments/{stage.name}.jsonl"


@dataclass(frozen=True)
class InProcess:
    """The model of a judge in this process; `name` identifies its weights, `vllm` runs them where that was asked."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    vllm: VLLMEngine | None = None

    @property
    def max_length(self) -> int:
        """Tokens of question and reply."""
        most = int(self.model.config.max_position_embeddings)
        return most if self.vllm is None else most - 1  # vLLM draws one token behind whatever it scores

    def respondent(self) -> LocalRespondent:
        """It chooses between a template's replies."""
        return LocalRespondent(
            live(self.model) if self.vllm is None else self.vllm.reply_logps,
            self.name,
            encode_prompt=partial(prompt_ids, self.tokenizer),
            encode_reply=partial(response_ids, self.tokenizer),
            max_length=self.max_length,
            engine=None if self.vllm is None else "vllm",
        )


def in_process(work: Bench) -> InProcess:
    """The model of the embedded or local judge. Raises: ModelError."""
    judge, at = work.stage.params.judge, work.stage.path(EMBEDDED)
    if judge.kind == "local":
        assert judge.name_or_path is not None, "the schema sees to it"
        at = work.stage.path(judge.name_or_path)
        if not at.exists():
            return _loaded(work, judge.name_or_path, judge.name_or_path)
    return _loaded(work, at, digest(at))


def _loaded(work: Bench, at: Path | str, name: str) -> InProcess:
    model, tokenizer = load_policy(at, work.device), load_tokenizer(at)
    return InProcess(model, tokenizer, name, _vllm(work, model, tokenizer))


def _vllm(work: Bench, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> VLLMEngine | None:
    if work.stage.params.judge.engine != "vllm":
        return None
    from rlpipe.stages.sampling import vllm_engine

    return vllm_engine(work, model, tokenizer, Sampling(0.0, 1), "judge")


@contextmanager
def embedded(work: Bench) -> Iterator[ModelJudge]:
    """models/judge. It knows scores only; of two responses the one of the higher score is its choice."""
    with _local(work, VERDICT, None) as judge:
        yield judge


@contextmanager
def _any_local(work: Bench) -> Iterator[ModelJudge]:
    with _local(work, score_template(top=work.stage.params.judge.top), choice_template()) as judge:
        yield judge


@contextmanager
def _openai(work: Bench) -> Iterator[ModelJudge]:
    with (
        endpoint_judge(endpoint(work.stage.params), settings(work.stage), on_call(work.stage)) as judge,
        accounted(work.stage, judge),
    ):
        yield judge


_OPEN = {"embedded": embedded, "local": _any_local, "openai": _openai}


@contextmanager
def _local(work: Bench, score: Template, choice: Template | None) -> Iterator[ModelJudge]:
    model = in_process(work)
    control = model.tokenizer.all_special_tokens
    with (
        local_judge(
            model.respondent(),
            settings(work.stage),
            score=score,
            choice=choice,
            control=control,
            on_call=on_call(work.stage),
        ) as judge,
        accounted(work.stage, judge),
    ):
        yield judge


def endpoint(params: Params) -> Endpoint:
    """The server behind the `openai` judge. Raises: ConfigError where nobody says where it is."""
    request, calls = params.judge.openai, params.judge_calls
    assert request is not None, "the schema sees to it"
    if calls.base_url is None:
        raise ConfigError("judge_calls.base_url=null: judge.kind is openai, and a server has an address. Set it.")
    how = calls.model_dump(exclude={"replay", "trace"})
    return Endpoint(**request.model_dump(), **how)


def settings(stage: Stage) -> Judging:
    """What holds for the judge, whoever answers."""
    judge = stage.params.judge
    return Judging(
        seed=stage.params.seed,
        fence_key=judge.fence_key,
        journal=stage.root / ".rlpipe" / "judgments" / f"{stage.address}.jsonl",
        known=tuple(sorted(stage.path(judge.known).glob("*.jsonl"))),
        replay=stage.params.judge_calls.replay,
        reasoned=judge.reasoned,
        top=judge.top,
        tie_margin=judge.tie_margin,
    )


def on_call(stage: Stage) -> OnCall | None:
    """Where calls are to be traced, each attempt becomes an MLflow trace; judgments from file make none."""
    return partial(_trace, stage.tracker) if stage.params.judge_calls.trace else None


def _trace(tracker: Tracker, call: Call) -> None:
    answer = call.answer
    tracker.trace(
        "judge",
        call.seconds,
        inputs=[dict(message) for message in call.question.messages],
        outputs=answer.reply or answer.detail,
        attributes={
            "model": call.model,
            "status": answer.status,
            "attempt": call.attempt,
            "key": call.question.key,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
        },
        ok=answer.status == "replied",
    )


@contextmanager
def accounted(stage: Stage, judge: Tallied) -> Iterator[None]:
    """However the block ends, the tracker is told what the judge's calls were and cost: it is spent.

    No output knows of it: calls differ between a run and its rerun, and prices are no parameters of a stage.
    """
    try:
        yield
    finally:
        stage.tracker.summary(spending(judge.tally, stage.params.judge_calls))


def spending(tally: Tally, prices: JudgeCalls) -> dict[str, float]:
    """Calls, tokens and cost, of this run's calls and of the answers used, in the prices' currency."""
    both = prices.prompt_price, prices.completion_price
    return {
        "judge/calls": float(tally.calls),
        "judge/calls_prompt_tokens": float(tally.called_prompt_tokens),
        "judge/calls_completion_tokens": float(tally.called_completion_tokens),
        "judge/calls_cost": tally.cost_of_calls(*both),
        "judge/cost": tally.cost(*both),
        **tokens(tally),
    }


def tokens(tally: Tally) -> dict[str, float]:
    """Those of the answers used, wherever they came from."""
    return {
        "judge/prompt_tokens": float(tally.prompt_tokens),
        "judge/completion_tokens": float(tally.completion_tokens),
    }


def counts(judge: Tallied) -> dict[str, float]:
    """Functions of the judgments used alone: the same whether they came from file or were asked now."""
    outcomes = {f"judge/{name}": float(judge.tally.outcomes[name]) for name in OUTCOMES}
    return {**outcomes, **tokens(judge.tally)}
