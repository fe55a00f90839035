"""Stage `constitution`: a policy's responses, criticised and revised -> data/constitution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlpipe.dataio.files import write_metrics, write_rows
from rlpipe.dataio.prepared import TASKS, read_tasks
from rlpipe.stages.base import Stage
from rlpipe.stats import wilson
from rlpipe.types import Demonstration

if TYPE_CHECKING:
    from rlpipe.rewards.constitutional.revising import Revised
    from rlpipe.stages.bench import Bench
    from rlpipe.training.encode import EncodedTasks

FOLDER = "data/constitution"
PRINCIPLES, REVISIONS, REVISED = (f"{FOLDER}/{name}.jsonl" for name in ("principles", "revisions", "demonstrations"))
METRICS = "metrics/constitution.json"
_DRAW = 1  # the step of the drafts' random streams: the embedded judge has learned from the samples of step 0

# The score of a text by the evaluation's verifier; None where it gives none.
Score = float | None


def run(stage: Stage) -> None:
    """Write every step's text, the demonstrations made of them, and how right they are; or that nobody wants them."""
    if stage.params.constitution.source == "none":
        for path in (PRINCIPLES, REVISIONS, REVISED, "data/judgments/constitution.jsonl"):
            write_rows(stage.path(path), [])
        write_metrics(stage.path(METRICS), {"made": False})
        return
    _make(stage)


def _make(stage: Stage) -> None:
    from rlpipe.rewards.constitutional.revising import revised
    from rlpipe.stages.bench import bench
    from rlpipe.stages.by_principles import principles_of, wording_of, writing
    from rlpipe.stages.judging import counts
    from rlpipe.training.encode import encode_tasks

    params, own = stage.params, stage.params.constitution
    work = bench(stage, stage.path(own.samples_from), params.seed)
    stage.tracker.dataset("tasks", stage.path(TASKS))
    rows = read_tasks(stage.root)[: own.prompts]
    tasks = encode_tasks(rows, work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    drafts = _drafts(work, tasks)
    principles, wording = principles_of(stage), wording_of(params)
    with writing(work) as writer:
        made = revised(drafts, writer, principles, wording, rounds=own.rounds, seed=params.seed)
        tally = counts(writer)
    scores = _scores(work, tasks, made)
    write_rows(stage.path(PRINCIPLES), principles)
    write_rows(stage.path(REVISIONS), [_record(one, own_scores) for one, own_scores in zip(made, scores, strict=True)])
    whole = [one for one in made if not one.missing]
    write_rows(stage.path(REVISED), [Demonstration(one.draft.id, one.draft.prompt, one.texts[-1]) for one in whole])
    metrics = {
        **measured(made, scores, params.evaluate.pass_threshold),
        **tally,
        "data/rows": len(made),
        "data/too_long": tasks.too_long,
        "data/demonstrations": len(whole),
    }
    write_metrics(stage.path(METRICS), {"made": True, **metrics})
    stage.tracker.summary(metrics)


def measured(made: Sequence[Revised], scores: Sequence[Sequence[Score]], threshold: float) -> dict[str, float]:
    """By round (0: the drafts): the share that the verifier lets pass with its interval, and the share that changed.

    A round counts the texts that it has and the verifier scores; what is missing is counted by its kind.
    """
    found: dict[str, float] = {}
    for number in range(max((len(texts) for texts in scores), default=0)):
        known = [own[number] for own in scores if len(own) > number and own[number] is not None]
        at = f"round_{number}"
        found[f"{at}_texts"] = sum(len(own) > number for own in scores)
        if known:
            passed = sum(score is not None and score >= threshold for score in known)
            low, high = wilson(passed, len(known))
            found |= {f"{at}_pass": passed / len(known), f"{at}_ci_low": low, f"{at}_ci_high": high}
        if number:
            steps = [one.texts[number - 1 : number + 1] for one in made if len(one.texts) > number]
            found[f"{at}_changed"] = sum(before != after for before, after in steps) / len(steps)
    kinds = Counter(":".join(one.missing.split(":")[:1]).replace(" ", "_") for one in made if one.missing)
    found |= {f"missing_{kind}": count for kind, count in sorted(kinds.items())}
    return {f"constitution/{name}": value for name, value in found.items()}


def _drafts(work: Bench, tasks: EncodedTasks) -> list[Any]:
    from rlpipe.models.load import load_policy
    from rlpipe.rewards.constitutional.revising import Draft
    from rlpipe.stages.sampling import sampler

    policy = load_policy(work.stage.path(work.stage.params.constitution.samples_from), work.device)
    drawn = sampler(work, policy, tasks).draw(range(len(tasks.tasks)), 1, step=_DRAW)
    return [Draft(task.id, task.prompt, text) for task, text in zip(drawn.tasks, drawn.texts, strict=True)]


def _scores(work: Bench, tasks: EncodedTasks, made: Sequence[Revised]) -> list[list[Score]]:
    """The verifier's scores of each draft and of its revisions."""
    from rlpipe.stages.rewarding import gold

    texts = [(task, text) for task, one in zip(tasks.tasks, made, strict=True) for text in one.texts]
    scored = iter(gold(work.stage.params)([task for task, _ in texts], [text for _, text in texts]))
    return [[next(scored).total for _ in one.texts] for one in made]


def _record(one: Revised, scores: Sequence[Score]) -> Mapping[str, Any]:
    """A draft with every step's text. A round without a revision has no score."""
    rounds = [
        {
            "principle": step.principle,
            "critique": step.critique,
            "revision": step.revision,
            "missing": step.missing,
            "score": None if step.missing else scores[number],
        }
        for number, step in enumerate(one.rounds, start=1)
    ]
    draft = one.draft
    return {"id": draft.id, "prompt": draft.prompt, "response": draft.response, "score": scores[0], "rounds": rounds}
