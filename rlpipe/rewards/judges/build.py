"""From settings to a judge that can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rlpipe.rewards.judges.base import JudgeError
from rlpipe.rewards.judges.endpoint import EndpointRespondent
from rlpipe.rewards.judges.fence import Fence
from rlpipe.rewards.judges.journal import Journal
from rlpipe.rewards.judges.model_judge import ModelJudge, OnCall, Respondent
from rlpipe.rewards.judges.settings import Endpoint, Judging
from rlpipe.rewards.judges.templates import Template, choice_template, score_template


@contextmanager
def endpoint_judge(endpoint: Endpoint, judging: Judging, on_call: OnCall | None = None) -> Iterator[ModelJudge]:
    """The `openai` judge with the embedded templates, its journal open.

    Raises: JudgeError for settings that contradict each other, or a journal in use.
    """
    if judging.reasoned and endpoint.structure == "choice":
        raise JudgeError(
            "judge.structure=choice: the server lets nothing but a verdict through, so the judge cannot say why first. "
            "Set reasoned to false, or structure to json_schema."
        )
    score = score_template(top=judging.top, reasoned=judging.reasoned)
    choice = choice_template(reasoned=judging.reasoned)
    respondent = EndpointRespondent(endpoint, judging.seed)
    with model_judge(respondent, judging, score=score, choice=choice, on_call=on_call) as judge:
        yield judge


@contextmanager
def local_judge(
    respondent: Respondent,
    judging: Judging,
    *,
    score: Template,
    choice: Template | None,
    control: Iterable[str],
    on_call: OnCall | None = None,
) -> Iterator[ModelJudge]:
    """A judge in this process: it compares its replies' log-probs, so a score is their mean and its doubt shows.

    Raises: JudgeError for settings that contradict each other, or a journal in use.
    """
    refuse_reasoned(judging)
    with model_judge(
        respondent, judging, score=score, choice=choice, control=control, expected=True, on_call=on_call
    ) as judge:
        yield judge


@contextmanager
def model_judge(
    respondent: Respondent,
    judging: Judging,
    *,
    score: Template,
    choice: Template | None,
    control: Iterable[str] = (),
    expected: bool = False,
    on_call: OnCall | None = None,
) -> Iterator[ModelJudge]:
    """Any respondent with any templates, its journal open.

    Args:
        choice, expected: see `ModelJudge`.
        control: the control tokens of the model's own tokenizer, to be broken up in what it is shown.
    """
    fence = fence_of(judging, control)
    with Journal(judging.journal, judging.known) as journal:
        yield ModelJudge(
            respondent,
            journal,
            fence,
            score=score,
            choice=choice,
            tie_margin=judging.tie_margin,
            replay=judging.replay,
            expected=expected,
            on_call=on_call,
        )


def fence_of(judging: Judging, control: Iterable[str]) -> Fence:
    """What makes texts safe to show to a model with these control tokens."""
    return Fence(f"{judging.seed}:{judging.fence_key}", control)


def refuse_reasoned(judging: Judging) -> None:
    """Raises: JudgeError where a judge in this process is to say why."""
    if judging.reasoned:
        raise JudgeError(
            "judge.reasoned=true: a judge in this process chooses between whole replies and says nothing before. "
            "Set it to false, or kind to openai."
        )
