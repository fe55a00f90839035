"""Stage `pairs`: data/prepared + models/sft -> data/pairs."""

from __future__ import annotations

from rlpipe.dataio.files import write_metrics, write_rows
from rlpipe.dataio.prepared import HELDOUT_PAIRS, TASKS, TRAIN_PAIRS, read_heldout, read_preferences, read_tasks
from rlpipe.dataio.splits import split_pairs
from rlpipe.errors import DataError
from rlpipe.stages.base import Stage
from rlpipe.types import Preference, Scored, Task


def run(stage: Stage) -> None:
    """Make the pairs, split them by prompt, write both parts."""
    source = stage.params.pairs.source
    counts: dict[str, float] = {}
    pairs: list[Preference] = []
    if source == "policy":
        pairs, counts = _from_policy(stage)
    elif source == "dataset":
        pairs = read_preferences(stage.root)
    if source != "none" and len(pairs) < 2:
        raise DataError(
            f"pairs.source={source}: {len(pairs)} pairs are left, at least 2 are needed. "
            "For policy, raise pairs.samples_per_prompt or train sft longer; for dataset, look at "
            "data/prepared/quarantine.jsonl."
        )
    evaluated = [task.prompt for task in read_heldout(stage.root)]
    train, heldout = split_pairs(pairs, evaluated, stage.params.pairs.heldout_fraction, stage.params.seed)
    write_rows(stage.path(TRAIN_PAIRS), train)
    write_rows(stage.path(HELDOUT_PAIRS), heldout)
    metrics = {**counts, "data/pairs_train": len(train), "data/pairs_heldout": len(heldout)}
    write_metrics(stage.path("metrics/pairs.json"), metrics)
    stage.tracker.summary(metrics)


def best_against_worst(tasks: list[Task], texts: list[str], scored: list[Scored], per_prompt: int) -> list[Preference]:
    """One pair a prompt: its best sample against its worst; prompts whose samples all score alike give none.

    Of samples that score alike, the first drawn is taken. A sample without a score takes no part.
    """
    pairs = []
    for start in range(0, len(tasks), per_prompt):
        group = [i for i in range(start, start + per_prompt) if scored[i].total is not None]
        if not group:
            continue
        best = max(group, key=lambda i: (scored[i].total, -i))
        worst = min(group, key=lambda i: (scored[i].total, i))
        if scored[best].total != scored[worst].total:
            pairs.append(Preference(tasks[start].id, tasks[start].prompt, texts[best], texts[worst]))
    return pairs


def _from_policy(stage: Stage) -> tuple[list[Preference], dict[str, float]]:
    from rlpipe.models.load import load_policy
    from rlpipe.stages.bench import bench
    from rlpipe.stages.rewarding import reward
    from rlpipe.stages.sampling import sampler
    from rlpipe.training.encode import encode_tasks

    params = stage.params
    work = bench(stage, stage.path("models/sft"))
    stage.tracker.dataset("tasks", stage.path(TASKS))
    tasks = encode_tasks(read_tasks(stage.root), work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    policy = load_policy(stage.path("models/sft"), work.device)
    per_prompt = params.pairs.samples_per_prompt
    samples = sampler(work, policy, tasks).draw(range(len(tasks.tasks)), per_prompt, step=0)
    scored = reward(work, params.pairs.reward)(samples.tasks, samples.texts)
    pairs = best_against_worst(samples.tasks, samples.texts, scored, per_prompt)
    ties = len(tasks.tasks) - len(pairs)
    return pairs, {"data/rows": len(tasks.tasks), "data/too_long": tasks.too_long, "data/ties_dropped": ties}
