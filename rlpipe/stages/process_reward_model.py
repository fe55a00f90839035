"""Stage `process_reward_model`: data/prepared + models/sft -> models/process_reward_model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlpipe.dataio.files import write_metrics, write_table
from rlpipe.dataio.prepared import PREPARED, TASKS, read_tasks
from rlpipe.dataio.records import prompt_key
from rlpipe.dataio.splits import hold_out
from rlpipe.errors import DataError
from rlpipe.rewards.steps import judged_steps
from rlpipe.stages.base import Stage
from rlpipe.stats import wilson

if TYPE_CHECKING:
    from rlpipe.stages.bench import Bench
    from rlpipe.training.process_reward import LabelledSteps


def run(stage: Stage) -> None:
    """Train on judged steps of the SFT policy's samples; where nobody wants it, say so and stop."""
    stage.path("models/process_reward_model").mkdir(parents=True, exist_ok=True)
    if stage.params.process_reward_model.source == "none":
        write_metrics(stage.path("metrics/process_reward_model.json"), {"trained": False})
        write_table(stage.path("plots/process_reward_model.csv"), [])
        return
    _train(stage)


def _train(stage: Stage) -> None:
    from rlpipe.models.learner import finished
    from rlpipe.models.load import new_reward_model, save
    from rlpipe.stages.bench import bench
    from rlpipe.stages.resume import resumable
    from rlpipe.training.process_reward import step_probabilities, train_process_reward_model

    params, settings = stage.params, stage.params.process_reward_model
    work = bench(stage, stage.path("models/sft"), stage.params.seed)
    train, heldout = _labelled(work)
    model = work.learner(new_reward_model(stage.path("models/sft"), work.device), scorer=True)
    with resumable(stage, PREPARED, "models/sft") as store:
        rows = train_process_reward_model(
            model, train, settings, work.batching, seed=params.seed, store=store, recorder=stage.tracker
        )
        whole = finished(model)
        save(whole, work.tokenizer, stage.path("models/process_reward_model"))
        found = step_probabilities(whole, heldout, work.batching)
        metrics = _heldout(heldout, found)
        write_table(stage.path("plots/process_reward_model.csv"), rows)
        write_metrics(stage.path("metrics/process_reward_model.json"), {"trained": True, **metrics})
    stage.tracker.summary({f"process_reward_model/{name}": value for name, value in metrics.items()})


def _labelled(work: Bench) -> tuple[list[LabelledSteps], list[LabelledSteps]]:
    """Samples of the SFT policy with their steps judged: those to learn from, and those of held-out prompts.

    Raises: DataError if none of the samples has a step.
    """
    from rlpipe.dataio.chat import token_ends
    from rlpipe.models.load import load_policy
    from rlpipe.stages.sampling import sampler
    from rlpipe.training.encode import encode_tasks
    from rlpipe.training.process_reward import LabelledSteps

    stage, params = work.stage, work.stage.params
    stage.tracker.dataset("tasks", stage.path(TASKS))
    tasks = encode_tasks(read_tasks(stage.root), work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    policy = load_policy(stage.path("models/sft"), work.device)
    per_prompt = params.process_reward_model.samples_per_prompt
    samples = sampler(work, policy, tasks).draw(range(len(tasks.tasks)), per_prompt, step=0)
    held = hold_out([task.prompt for task in tasks.tasks], params.process_reward_model.heldout_fraction, params.seed)
    parts: tuple[list[LabelledSteps], list[LabelledSteps]] = ([], [])
    for task, prompt, completion, text in zip(
        samples.tasks, samples.prompts, samples.completions, samples.texts, strict=True
    ):
        steps = judged_steps(task, text)
        if steps:
            ends = tuple(token_ends(work.tokenizer, completion.ids, [step.end for step in steps]))
            labels = tuple(float(step.is_right) for step in steps)
            parts[prompt_key(task.prompt) in held].append(LabelledSteps(prompt, completion.ids, ends, labels))
    if not all(parts):
        raise DataError(
            "process_reward_model.source=policy: no sample of the SFT policy has a step to judge, such as `3+6=9` or "
            "an answer. Train sft longer, or set the source to none."
        )
    return parts


def _heldout(rows: Sequence[LabelledSteps], found: Sequence[Sequence[float]]) -> dict[str, float]:
    """Accuracy of "right" at probability 1/2 with its interval, and what calling every step right would score."""
    pairs = [
        (label, p)
        for row, probabilities in zip(rows, found, strict=True)
        for label, p in zip(row.labels, probabilities, strict=True)
    ]
    right = sum((p > 0.5) == (label > 0.5) for label, p in pairs)
    low, high = wilson(right, len(pairs))
    return {
        "heldout_accuracy": right / len(pairs),
        "ci_low": low,
        "ci_high": high,
        "heldout_steps": len(pairs),
        "right_frac": statistics.fmean(label for label, _ in pairs),
    }
