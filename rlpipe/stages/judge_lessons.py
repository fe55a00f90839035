"""What the embedded judge learns from: samples of the SFT policy, labelled by a verifier, criticised by a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rlpipe.dataio.records import prompt_key
from rlpipe.dataio.splits import hold_out
from rlpipe.dataio.tokenizers import extended
from rlpipe.errors import DataError
from rlpipe.models.load import load_policy
from rlpipe.rewards import VERIFIERS, compose
from rlpipe.rewards.constitutional.lessons import Lesson, lessons
from rlpipe.rewards.judges.embedded import question, reply
from rlpipe.rewards.judges.fence import Fence
from rlpipe.stages.bench import Bench
from rlpipe.stages.by_principles import principles_of
from rlpipe.stages.sampling import sampler
from rlpipe.training.encode import Encoded, encode_demonstrations, encode_tasks
from rlpipe.types import Demonstration, Task


@dataclass(frozen=True)
class Labelled:
    """A response of the SFT policy, and whether the verifier finds it right."""

    task: Task
    response: str
    is_right: bool


def labelled(work: Bench, rows: Sequence[Task]) -> tuple[list[Labelled], list[Labelled]]:
    """Samples to learn from, and samples of held-out prompts. One without a label takes no part.

    Raises: DataError if the labels of either part are all the same: nothing could be learned or measured.
    """
    params, settings = work.stage.params, work.stage.params.judge_model
    tasks = encode_tasks(rows, work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    policy = load_policy(work.stage.path("models/sft"), work.device)
    drawn = sampler(work, policy, tasks).draw(range(len(tasks.tasks)), settings.samples_per_prompt, step=0)
    scored = compose({settings.labels: 1.0}, VERIFIERS)(drawn.tasks, drawn.texts)
    held = hold_out([task.prompt for task in tasks.tasks], settings.heldout_fraction, params.seed)
    parts: tuple[list[Labelled], list[Labelled]] = ([], [])
    for task, text, score in zip(drawn.tasks, drawn.texts, scored, strict=True):
        if score.total is not None:
            one = Labelled(task, text, score.total >= settings.pass_threshold)
            parts[prompt_key(task.prompt) in held].append(one)
    for part in parts:
        if len({one.is_right for one in part}) < 2:
            raise DataError(
                f"judge_model.labels={settings.labels}: the SFT policy's samples are all right or all wrong, so there "
                "is nothing to tell apart. Train sft otherwise, or choose another judge.kind."
            )
    return parts


def verdicts(work: Bench, rows: Sequence[Labelled]) -> list[Demonstration]:
    """Question and reply of each row."""
    fence = _fence(work)
    return [
        Demonstration(one.task.id, question(fence, one.task.prompt, one.response), reply(is_right=one.is_right))
        for one in rows
    ]


def by_principles(work: Bench, rows: Sequence[Labelled], *, planted: bool) -> list[Lesson]:
    """What a program teaches of the constitution on these responses; nothing where the judge learns verdicts alone.

    Raises: ConfigError for principles that no program teaches.
    """
    params = work.stage.params
    if params.judge_model.principles_from != params.constitution.principles:
        return []
    responses = [(one.task.prompt, one.response) for one in rows]
    return lessons(responses, principles_of(work.stage), _fence(work), planted=planted, seed=params.seed)


def literate(work: Bench, texts: Iterable[str]) -> Bench:
    """The bench with a tokenizer that can write all of `texts`."""
    return replace(work, tokenizer=extended(work.tokenizer, texts))


def encoded(work: Bench, rows: Sequence[Demonstration]) -> Encoded:
    """Raises: DataError if none fits `judge_model.max_length`."""
    return encode_demonstrations(rows, work.tokenizer, work.stage.params.judge_model.max_length)


def as_rows(taught: Sequence[Lesson]) -> list[Demonstration]:
    """Lessons as rows to learn from."""
    return [Demonstration(f"{one.kind}:{at}", one.question, one.reply) for at, one in enumerate(taught)]


def _fence(work: Bench) -> Fence:
    return Fence(work.stage.params.judge.fence_key, work.tokenizer.all_special_tokens)
