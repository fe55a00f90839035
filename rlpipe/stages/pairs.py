"""Stage `pairs@NAME`: prompts, and the model that answers them -> data/pairs/NAME, a set of preference pairs."""

from __future__ import annotations

from collections.abc import Sequence

from rlpipe.dataio.files import write_metrics, write_rows
from rlpipe.dataio.prepared import (
    HELDOUT_PART,
    PAIRS,
    PREPARED,
    TASKS,
    TRAIN,
    read_heldout,
    read_preferences,
    read_tasks,
)
from rlpipe.dataio.splits import split_pairs
from rlpipe.errors import DataError
from rlpipe.stages.base import Stage
from rlpipe.types import Preference


def run(stage: Stage) -> None:
    """Make the pairs, split them by prompt, write both parts."""
    settings = stage.params.pairs[stage.item]
    counts: dict[str, float] = {}
    pairs: list[Preference] = []
    if settings.source == "policy":
        pairs, counts = _from_policy(stage)
    else:
        write_rows(stage.path(f"data/judgments/pairs/{stage.item}.jsonl"), [])
        if settings.source == "dataset":
            pairs = read_preferences(stage.root)
    if settings.source != "none" and len(pairs) < 2:
        raise DataError(
            f"pairs.{stage.item}.source={settings.source}: {len(pairs)} pairs are left, at least 2 are needed. "
            f"For policy, raise pairs.{stage.item}.samples_per_prompt or train sft longer; for dataset, look at "
            "data/prepared/quarantine.jsonl."
        )
    evaluated = [task.prompt for task in read_heldout(stage.root)]
    train, heldout = split_pairs(pairs, evaluated, settings.heldout_fraction, stage.params.seed)
    write_rows(stage.path(f"{PAIRS}/{stage.item}/{TRAIN}"), train)
    write_rows(stage.path(f"{PAIRS}/{stage.item}/{HELDOUT_PART}"), heldout)
    metrics = {**counts, "data/pairs_train": len(train), "data/pairs_heldout": len(heldout)}
    write_metrics(stage.path(f"metrics/pairs/{stage.item}.json"), metrics)
    stage.tracker.summary(metrics)


def _from_policy(stage: Stage) -> tuple[list[Preference], dict[str, float]]:
    from rlpipe.models.load import load_policy
    from rlpipe.stages.bench import bench
    from rlpipe.stages.by_principles import comparing
    from rlpipe.stages.judging import asking
    from rlpipe.stages.labelling import best_against_worst, two_by_two, worth_behind_reward
    from rlpipe.stages.rewarding import JUDGE, gold, reward
    from rlpipe.stages.sampling import sampler
    from rlpipe.training.encode import encode_tasks

    params, settings = stage.params, stage.params.pairs[stage.item]
    work = bench(stage, stage.path(settings.samples_from), params.seed)
    stage.tracker.dataset("tasks", stage.path(TASKS))
    tasks = encode_tasks(read_tasks(stage.root), work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    policy = load_policy(stage.path(settings.samples_from), work.device)
    per_prompt = settings.samples_per_prompt
    drawn = sampler(work, policy, tasks).draw(range(len(tasks.tasks)), per_prompt, step=0)
    prompts, tokens = within_budget([len(c.ids) for c in drawn.completions], per_prompt, settings.token_budget)
    rows, texts = drawn.tasks[: prompts * per_prompt], drawn.texts[: prompts * per_prompt]
    counts: dict[str, float] = {"data/rows": prompts, "data/too_long": tasks.too_long, "data/tokens_drawn": tokens}
    judged = settings.reward is None or JUDGE in settings.reward
    with asking(work, needed=judged) if settings.principles_from == PREPARED else comparing(work) as asked:
        canaries = params.judge.canary_prompts
        if settings.reward is None:
            assert asked.judge is not None, "needed"
            pairs, labels = two_by_two(rows, texts, per_prompt, asked.judge, gold(params), canaries)
        else:
            scored = reward(work, settings.reward, judge=asked.judge)(rows, texts)
            pairs = best_against_worst(rows, texts, scored, per_prompt)
            missing = sum(one.total is None for one in scored)
            labels = {"data/ties_dropped": prompts - len(pairs), "data/samples_missing": missing}
            if asked.judge is not None:
                labels |= worth_behind_reward(rows, texts, scored, per_prompt, asked.judge, gold(params), canaries)
        return pairs, {**counts, **labels, **asked.counts()}


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
