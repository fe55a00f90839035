"""Stage `reward_model@NAME`: the set of pairs and the weights that its section names -> models/reward_model/NAME."""

from __future__ import annotations

import statistics
from pathlib import Path

from rlpipe.dataio.files import write_metrics, write_table
from rlpipe.dataio.prepared import TRAIN, read_heldout_pairs, read_train_pairs
from rlpipe.stages.base import Stage
from rlpipe.stats import wilson


def run(stage: Stage) -> None:
    """Train on the pairs and measure on held-out ones; where there are no pairs by intent, say so and stop."""
    stage.path(f"models/reward_model/{stage.item}").mkdir(parents=True, exist_ok=True)
    learns_from = stage.params.reward_model[stage.item].learns_from
    if stage.params.pairs[learns_from.rpartition("/")[2]].source == "none":
        write_metrics(_metrics(stage), {"trained": False})
        write_table(_table(stage), [])
        return
    _train(stage)


def _train(stage: Stage) -> None:
    from rlpipe.models.learner import finished
    from rlpipe.models.load import new_reward_model, save, with_normaliser
    from rlpipe.stages.bench import bench
    from rlpipe.stages.resume import resumable
    from rlpipe.training.encode import encode_pairs
    from rlpipe.training.reward_model import train_reward_model
    from rlpipe.training.scoring import score_examples

    params, settings = stage.params, stage.params.reward_model[stage.item]
    start, pairs = stage.path(settings.starts_from), stage.path(settings.learns_from)
    work = bench(stage, start, params.seed)
    stage.tracker.dataset("pairs", pairs / TRAIN)
    train = encode_pairs(read_train_pairs(pairs), work.tokenizer, params.model.max_length)
    heldout = encode_pairs(read_heldout_pairs(pairs), work.tokenizer, params.model.max_length)
    model = work.learner(new_reward_model(start, work.device), scorer=True)
    with resumable(stage, settings.learns_from, settings.starts_from) as store:
        rows = train_reward_model(
            model, train, settings, work.batching, seed=params.seed, store=store, recorder=stage.tracker
        )
        whole = finished(model)
        seen = score_examples(whole, [*train.chosen, *train.rejected], work.batching)
        whole = with_normaliser(whole, statistics.fmean(seen), statistics.pstdev(seen))
        save(whole, work.tokenizer, stage.path(f"models/reward_model/{stage.item}"))
        chosen = score_examples(whole, heldout.chosen, work.batching)
        rejected = score_examples(whole, heldout.rejected, work.batching)
        metrics = _heldout(chosen, rejected) | {"pairs_too_long": train.too_long + heldout.too_long}
        write_table(_table(stage), rows)
        write_metrics(_metrics(stage), {"trained": True, **metrics})
    stage.tracker.summary({f"reward_model/{name}": value for name, value in metrics.items()})


def _metrics(stage: Stage) -> Path:
    return stage.path(f"metrics/reward_model/{stage.item}.json")


def _table(stage: Stage) -> Path:
    return stage.path(f"plots/reward_model/{stage.item}.csv")


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
