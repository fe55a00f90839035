"""The judge of params.yaml under the constitution: it writes critiques and revisions, and compares by a principle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from rlpipe.config import Params
from rlpipe.dataio.chat import decode, prompt_ids
from rlpipe.rewards.constitutional.principled import PrincipledJudge
from rlpipe.rewards.constitutional.principles import Principle, read_principles
from rlpipe.rewards.constitutional.wording import Wording, bare, spoken
from rlpipe.rewards.judges.build import fence_of, refuse_reasoned
from rlpipe.rewards.judges.endpoint import EndpointRespondent
from rlpipe.rewards.judges.journal import Journal, write_judgments
from rlpipe.rewards.judges.model_judge import ModelJudge, Respondent
from rlpipe.rewards.judges.writer import Generate, LocalWriter, Writer
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import Bench
from rlpipe.stages.judging import (
    Asked,
    InProcess,
    accounted,
    counts,
    endpoint,
    in_process,
    judgments_of,
    on_call,
    settings,
)
from rlpipe.stages.sampling import engine
from rlpipe.types import Completion, Request, Sampling


@dataclass(frozen=True)
class _Answering:
    """Who answers, and what must be broken up in what it is shown."""

    respondent: Respondent
    control: Sequence[str]


def principles_of(stage: Stage) -> tuple[Principle, ...]:
    """Those of `constitution.principles`. Raises: ConfigError."""
    return read_principles(stage.path(stage.params.constitution.principles))


def wording_of(params: Params) -> Callable[[Principle], Wording]:
    """How the judge of params.yaml is asked."""
    judge = params.judge
    return bare if judge.kind == "embedded" else partial(spoken, top=judge.top, reasoned=judge.reasoned)


@contextmanager
def writing(work: Bench) -> Iterator[Writer]:
    """The judge as a writer; if the block ends well, what it wrote is the stage's output of judgments.

    Raises: JudgeError, ConfigError, ModelError for a judge that cannot be asked.
    """
    stage, judging = work.stage, settings(work.stage)
    author = _author(work)
    with Journal(judging.journal, judging.known) as journal:
        fence = fence_of(judging, author.control)
        writer = Writer(author.respondent, journal, fence, replay=judging.replay, on_call=on_call(stage))
        with accounted(stage, writer):
            yield writer
        write_judgments(stage.path(judgments_of(stage)), writer.used.values())


@contextmanager
def comparing(work: Bench) -> Iterator[Asked]:
    """The judge that compares by a principle a prompt; the judgments used are the stage's output.

    Raises: as `writing`.
    """
    stage, judging = work.stage, settings(work.stage)
    chooser, is_local, wording = _chooser(work), work.stage.params.judge.kind != "openai", wording_of(stage.params)
    if is_local:
        refuse_reasoned(judging)
    with Journal(judging.journal, judging.known) as journal:
        fence = fence_of(judging, chooser.control)

        def judge_by(principle: Principle) -> ModelJudge:
            asked = wording(principle)
            return ModelJudge(
                chooser.respondent,
                journal,
                fence,
                score=asked.score,
                choice=asked.choice,
                tie_margin=judging.tie_margin,
                replay=judging.replay,
                expected=is_local,
                on_call=on_call(stage),
            )

        judge = PrincipledJudge(judge_by, principles_of(stage), stage.params.seed)
        with accounted(stage, judge):
            yield Asked(judge, {}, partial(counts, judge))
        write_judgments(stage.path(judgments_of(stage)), judge.used.values())


def generating(work: Bench, judge: InProcess) -> Generate:
    """Texts of a judge in this process, by the settings of `constitution`."""
    own = work.stage.params.constitution
    sampling = Sampling(own.temperature, own.max_new_tokens)
    kind = work.stage.params.judge.engine
    drawing = engine(work, judge.model, judge.tokenizer, kind, sampling, "judge_writing")

    def generate(requests: Sequence[Request]) -> Sequence[Completion]:
        return drawing.generate(requests, sampling)

    return generate


def _author(work: Bench) -> _Answering:
    own, params = work.stage.params.constitution, work.stage.params
    if params.judge.kind == "openai":
        # A verdict is a few tokens, a revision as many as a response.
        return _Answering(EndpointRespondent(replace(endpoint(params), max_tokens=own.max_new_tokens), params.seed), ())
    judge = in_process(work)
    writer = LocalWriter(
        generating(work, judge),
        judge.name,
        encode_prompt=partial(prompt_ids, judge.tokenizer),
        decode=partial(decode, judge.tokenizer),
        sampling={"temperature": own.temperature, "max_new_tokens": own.max_new_tokens},
        max_prompt=judge.max_length - own.max_new_tokens,
        seed=params.seed,
    )
    return _Answering(writer, judge.tokenizer.all_special_tokens)


def _chooser(work: Bench) -> _Answering:
    params = work.stage.params
    if params.judge.kind == "openai":
        return _Answering(EndpointRespondent(endpoint(params), params.seed), ())
    judge = in_process(work)
    return _Answering(judge.respondent(), judge.tokenizer.all_special_tokens)
