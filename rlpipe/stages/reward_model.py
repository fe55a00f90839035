"""Stage `reward_model`: data/pairs + models/sft -> models/reward_model."""

from __future__ import annotations

import statistics

from rlpipe.dataio.files import write_metrics, write_table
from rlpipe.dataio.prepared import PAIRS, TRAIN_PAIRS, read_heldout_pairs, read_train_pairs
from rlpipe.stages.base import Stage
from rlpipe.stats import wilson


def run(stage: Stage) -> None:
    """Train on the pairs and measure on held-out ones; where there are no pairs by intent, say so and stop."""
    stage.path("models/reward_model").mkdir(parents=True, exist_ok=True)
    if stage.params.pairs.source == "none":
        write_metrics(stage.path("metrics/reward_model.json"), {"trained": False})
        write_table(stage.path("plots/reward_model.csv"), [])
        return
    _train(stage)


def _train(stage: Stage) -> None:
    from rlpipe.models.learner import finished, learner
    from rlpipe.models.load import new_reward_model, save, with_normaliser
    from rlpipe.stages.bench import bench
    from rlpipe.stages.resume import resumable
    from rlpipe.training.encode import encode_pairs
    from rlpipe.training.reward_model import train_reward_model
    from rlpipe.training.scoring import score_examples

    params, settings = stage.params, stage.params.reward_model
    work = bench(stage, stage.path("models/sft"), stage.params.seed)
    stage.tracker.dataset("pairs", stage.path(TRAIN_PAIRS))
    train = encode_pairs(read_train_pairs(stage.root), work.tokenizer, params.model.max_length)
    heldout = encode_pairs(read_heldout_pairs(stage.root), work.tokenizer, params.model.max_length)
    model = learner(new_reward_model(stage.path("models/sft"), work.device), params.model.adapter, scorer=True)
    with resumable(stage, PAIRS, "models/sft") as store:
        rows = train_reward_model(
            model, train, settings, work.batching, seed=params.seed, store=store, recorder=stage.tracker
        )
        size = settings.micro_batch_size
        whole = finished(model)
        seen = score_examples(whole, [*train.chosen, *train.rejected], work.batching, size)
        whole = with_normaliser(whole, statistics.fmean(seen), statistics.pstdev(seen))
        save(whole, work.tokenizer, stage.path("models/reward_model"))
        chosen = score_examples(whole, heldout.chosen, work.batching, size)
        rejected = score_examples(whole, heldout.rejected, work.batching, size)
        metrics = _heldout(chosen, rejected) | {"pairs_too_long": train.too_long + heldout.too_long}
        write_table(stage.path("plots/reward_model.csv"), rows)
        write_metrics(stage.path("metrics/reward_model.json"), {"trained": True, **metrics})
    stage.tracker.summary({f"reward_model/{name}": value for name, value in metrics.items()})


def _heldout(chosen: list[float], rejected: list[float]) -> dict[str, float]:
    """Pair accuracy with its interval; equal scores count as wrong. Scores in units of their spread on train pairs."""
    right = sum(c > r for c, r in zip(chosen, rejected, strict=True))
    low, high = wilson(right, len(chosen))
    return {
        "heldout_accuracy": right / len(chosen),
        "ci_low": low,
        "ci_high": high,
        "heldout_pairs": len(chosen),
        "chosen_mean": statistics.fmean(chosen),
        "rejected_mean": statistics.fmean(rejected),
        "chosen_std": statistics.pstdev(chosen),
        "rejected_std": statistics.pstdev(rejected),
    }
