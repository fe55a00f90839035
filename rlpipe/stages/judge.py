"""Stage `judge`: data/prepared + models/sft -> models/judge, a small generative judge of the data's own tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlpipe.dataio.files import write_metrics, write_table
from rlpipe.dataio.prepared import PREPARED, TASKS, read_tasks
from rlpipe.stages.base import Stage

if TYPE_CHECKING:
    from rlpipe.stages.bench import Bench
    from rlpipe.stages.judge_lessons import Labelled

FOLDER, METRICS, TABLE = "models/judge", "metrics/judge.json", "plots/judge.csv"


def run(stage: Stage) -> None:
    """Train on labelled samples of the SFT policy and measure on held-out prompts; say so where nobody wants it."""
    stage.path(FOLDER).mkdir(parents=True, exist_ok=True)
    if stage.params.judge.kind != "embedded":
        write_metrics(stage.path(METRICS), {"trained": False})
        write_table(stage.path(TABLE), [])
        return
    _train(stage)


def _train(stage: Stage) -> None:
    from rlpipe.models.load import load_policy, save, with_tokens
    from rlpipe.stages.bench import bench
    from rlpipe.stages.judge_lessons import as_rows, by_principles, encoded, labelled, literate, verdicts
    from rlpipe.stages.resume import resumable
    from rlpipe.training.sft import train_sft

    params, settings = stage.params, stage.params.judge_model
    work = bench(stage, stage.path("models/sft"), params.seed)
    stage.tracker.dataset("tasks", stage.path(TASKS))
    train, heldout = labelled(work, read_tasks(stage.root))
    rows_to_learn = [*verdicts(work, train), *as_rows(by_principles(work, train, planted=True))]
    known = len(work.tokenizer)
    work = literate(work, [text for row in rows_to_learn for text in (row.prompt, row.response)])
    lessons = encoded(work, rows_to_learn)
    start = work.whole(load_policy(stage.path("models/sft"), work.device))
    model = with_tokens(start, known, len(work.tokenizer), params.seed)
    model.config.max_position_embeddings = settings.max_length
    with resumable(stage, PREPARED, "models/sft") as store:
        rows = train_sft(
            model, lessons.examples, settings, work.batching, seed=params.seed, store=store, recorder=stage.tracker
        )
        save(model, work.tokenizer, stage.path(FOLDER))
        metrics = {**_heldout(work, heldout), "lessons": len(lessons.examples), "too_long": lessons.too_long}
        write_table(stage.path(TABLE), rows)
        write_metrics(stage.path(METRICS), {"trained": True, **metrics})
    stage.tracker.summary({f"judge/{name}": value for name, value in metrics.items()})


def _heldout(work: Bench, heldout: list[Labelled]) -> dict[str, float]:
    """The judge as it is asked later, on responses to prompts that it has not learned from."""
    from rlpipe.rewards.judges.canaries import canary_scores
    from rlpipe.rewards.judges.statistics import binary_accuracy
    from rlpipe.stages.judge_exam import exam
    from rlpipe.stages.judge_lessons import by_principles
    from rlpipe.stages.judging import embedded

    stage = work.stage
    with embedded(work) as judge:
        verdicts = judge.scores([(one.task.prompt, one.response) for one in heldout])
        honest = [(one.task.prompt, one.response) for one in heldout if one.is_right]
        canaries = canary_scores(judge, honest[: stage.params.judge.canary_prompts])
    found = binary_accuracy([verdict.score for verdict in verdicts], [one.is_right for one in heldout])
    return {**found, **canaries.metrics(), **exam(work, by_principles(work, heldout, planted=False))}
