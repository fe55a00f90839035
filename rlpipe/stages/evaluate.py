"""Stage `evaluate@NAME`: models/NAME on the held-out tasks -> metrics/evaluate/NAME.json, data/samples/NAME.jsonl."""

from __future__ import annotations

import statistics

from rlpipe.dataio.files import write_metrics, write_rows
from rlpipe.dataio.prepared import HELDOUT, read_heldout
from rlpipe.errors import RewardError
from rlpipe.models.learner import reference_of
from rlpipe.models.load import load_policy
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import bench
from rlpipe.stages.rewarding import format_rate, gold
from rlpipe.stages.sampling import sampler
from rlpipe.stats import wilson
from rlpipe.training.encode import encode_tasks
from rlpipe.training.samples import kl_metrics, length_metrics, logp_in_parts, reference_logp


def run(stage: Stage) -> None:
    """One sample a task at the rollout's temperature: pass@1 with its interval, and KL to the SFT policy."""
    params = stage.params
    work = bench(stage, stage.path("models/sft"), stage.params.seed)
    stage.tracker.dataset("heldout", stage.path(HELDOUT))
    rows = read_heldout(stage.root)[: params.evaluate.tasks]
    tasks = encode_tasks(rows, work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    model = load_policy(stage.path(f"models/{stage.item}"), work.device)
    samples = sampler(work, model, tasks).draw(range(len(tasks.tasks)), 1, step=0)
    reference = reference_of(load_policy(stage.path("models/sft"), work.device))
    logp_BT = logp_in_parts(model, samples.batch, work.batching, 1.0)
    ref_BT = reference_logp(reference, samples.batch, work.batching)
    kl = kl_metrics(logp_BT, ref_BT, samples.batch.response_mask_BT)

    scored = gold(params)(samples.tasks, samples.texts)
    scores = [s.total for s in scored if s.total is not None]
    if len(scores) < len(scored):
        missing = next(s.missing for s in scored if s.total is None)
        raise RewardError(f"{len(scored) - len(scores)} held-out completions have no score: {missing}.")
    passed = [score >= params.evaluate.pass_threshold for score in scores]
    low, high = wilson(sum(passed), len(passed))
    metrics = {
        "pass_at_1": sum(passed) / len(passed),
        "ci_low": low,
        "ci_high": high,
        "n": len(passed),
        "kl_ref_seq": kl["kl/ref_seq_sum"],
        "kl_ref_k1_token": kl["kl/ref_k1_token"],
        "kl_ref_k3_token": kl["kl/ref_k3_token"],
        "score_mean": statistics.fmean(scores),
        "format_rate": format_rate(samples.tasks, samples.texts),
        "length_mean": length_metrics(samples.completions)["length/mean"],
        "too_long": tasks.too_long,
    }
    write_metrics(stage.path(f"metrics/evaluate/{stage.item}.json"), metrics)
    write_rows(
        stage.path(f"data/samples/{stage.item}.jsonl"),
        (
            {"id": task.id, "prompt": task.prompt, "answer": task.answer, "completion": text, "score": score}
            for task, text, score in zip(samples.tasks, samples.texts, scores, strict=True)
        ),
    )
    shown = ("pass_at_1", "ci_low", "ci_high")
    stage.tracker.summary({f"eval/{params.evaluate.reward}/{name}": metrics[name] for name in shown})
