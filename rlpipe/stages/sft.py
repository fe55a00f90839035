"""Stage `sft`: data/prepared -> models/sft."""

from __future__ import annotations

from rlpipe.dataio.files import write_metrics, write_table
from rlpipe.dataio.prepared import DEMONSTRATIONS, PREPARED, TOKENIZER, read_demonstrations
from rlpipe.models.learner import finished
from rlpipe.models.load import build_scratch, load_policy, save
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import bench
from rlpipe.stages.resume import resumable
from rlpipe.training.encode import encode_demonstrations
from rlpipe.training.sft import train_sft


def run(stage: Stage) -> None:
    """Train the base model on the demonstrations and write it whole, an adapter folded in."""
    params = stage.params
    base = params.model.name_or_path
    work = bench(stage, base or stage.path(TOKENIZER), params.sft.seed)
    stage.tracker.dataset("demonstrations", stage.path(DEMONSTRATIONS))
    encoded = encode_demonstrations(read_demonstrations(stage.root), work.tokenizer, params.model.max_length)
    model = (
        load_policy(base, work.device)
        if base
        else build_scratch(params.model.scratch, work.tokenizer, params.model.max_length, work.device)
    )
    policy = work.learner(model)
    with resumable(stage, PREPARED) as store:
        rows = train_sft(
            policy,
            encoded.examples,
            params.sft,
            work.batching,
            seed=params.sft.seed,
            store=store,
            recorder=stage.tracker,
        )
        save(finished(policy), work.tokenizer, stage.path("models/sft"))
        write_table(stage.path("plots/sft.csv"), rows)
        metrics = {**rows[-1], "data/rows": len(encoded.examples), "data/too_long": encoded.too_long}
        write_metrics(stage.path("metrics/sft.json"), metrics)
    stage.tracker.summary(metrics)
