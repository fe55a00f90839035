"""Stage `pairs`: data/prepared + models/sft -> data/pairs."""

from __future__ import annotations

from collections.abc import Sequence

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
        totals = {i: scored[i].total for i in range(start, start + per_prompt)}
        known = {i: total for i, total in totals.items() if total is not None}
        if not known:
            continue
        best = max(known, key=lambda i: (known[i], -i))
        worst = min(known, key=lambda i: (known[i], i))
        margin = known[best] - known[worst]
        if margin > 0:
            pairs.append(Preference(tasks[start].id, tasks[start].prompt, texts[best], texts[worst], margin))
    return pairs


def _from_policy(stage: Stage) -> tuple[list[Preference], dict[str, float]]:
    from rlpipe.models.load import load_policy
    from rlpipe.stages.bench import bench
    from rlpipe.stages.rewarding import reward
    from rlpipe.stages.sampling import sampler
    from rlpipe.training.encode import encode_tasks

    params = stage.params
    work = bench(stage, stage.path("models/sft"), stage.params.seed)
    stage.tracker.dataset("tasks", stage.path(TASKS))
    tasks = encode_tasks(read_tasks(stage.root), work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    policy = load_policy(stage.path("models/sft"), work.device)
    per_prompt = params.pairs.samples_per_prompt
    drawn = sampler(work, policy, tasks).draw(range(len(tasks.tasks)), per_prompt, step=0)
    prompts, tokens = within_budget([len(c.ids) for c in drawn.completions], per_prompt, params.pairs.token_budget)
    used = slice(0, prompts * per_prompt)
    scored = reward(work, params.pairs.reward)(drawn.tasks[used], drawn.texts[used])
    pairs = best_against_worst(drawn.tasks[used], drawn.texts[used], scored, per_prompt)
    return pairs, {
        "data/rows": prompts,
        "data/too_long": tasks.too_long,
        "data/ties_dropped": prompts - len(pairs),
        "data/samples_missing": sum(one.total is None for one in scored),
        "data/tokens_drawn": tokens,
    }


def within_budget(lengths: Sequence[int], per_prompt: int, budget: int | None) -> tuple[int, int]:
    """How many of the first prompts to use so that their samples reach the budget, and the tokens these have.

    Args: lengths: tokens of each sample, `per_prompt` siblings side by side.
    """
    tokens = 0
    for start in range(0, len(lengths), per_prompt):
        if budget is not None and tokens >= budget:
            return start // per_prompt, tokens
        tokens += sum(lengths[start : start + per_prompt])
    return len(lengths) // per_prompt, tokens
