"""Stage `policy@NAME`: models/sft and what the section learns from -> models/NAME."""

from __future__ import annotations

from torch import nn

from rlpipe.algos.plan import PreferencePlan, RLPlan, plan
from rlpipe.checkpoint.store import Rows, Store
from rlpipe.dataio.files import write_metrics, write_table
from rlpipe.dataio.prepared import PREPARED, TASKS, TRAIN_PAIRS, read_tasks, read_train_pairs
from rlpipe.models.learner import learner, reference_of
from rlpipe.models.load import load_policy, new_critic, save
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import Bench, bench
from rlpipe.stages.resume import resumable
from rlpipe.stages.rewarding import gold, reward
from rlpipe.stages.sampling import sampler
from rlpipe.training.encode import encode_pairs, encode_tasks
from rlpipe.training.preference import train_preference
from rlpipe.training.rl import RLTrainer
from rlpipe.training.samples import Sampler


def run(stage: Stage) -> None:
    """Train the policy that the section describes, from the SFT weights."""
    params, section = stage.params, stage.params.policy[stage.item]
    chosen = plan(stage.item, section)
    work = bench(stage, stage.path("models/sft"))
    policy = learner(load_policy(stage.path("models/sft"), work.device), params.model.adapter)
    tasks = encode_tasks(read_tasks(stage.root), work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    stage.tracker.dataset("tasks", stage.path(TASKS))
    draws = sampler(work, policy, tasks)
    with resumable(stage, PREPARED, "models/sft", section.learns_from) as store:
        if isinstance(chosen, PreferencePlan):
            rows = _from_pairs(work, chosen, policy, draws, store)
        else:
            rows = _online(work, chosen, policy, draws, store)
        save(policy, work.tokenizer, stage.path(f"models/{stage.item}"))
        write_table(stage.path(f"plots/policy/{stage.item}.csv"), rows)
        write_metrics(stage.path(f"metrics/policy/{stage.item}.json"), rows[-1])
    stage.tracker.summary(rows[-1])


def _from_pairs(work: Bench, chosen: PreferencePlan, policy: nn.Module, draws: Sampler, store: Store) -> Rows:
    stage = work.stage
    stage.tracker.dataset("pairs", stage.path(TRAIN_PAIRS))
    pairs = encode_pairs(read_train_pairs(stage.root), work.tokenizer, stage.params.model.max_length)
    return train_preference(
        chosen,
        policy,
        reference_of(policy),
        pairs,
        draws,
        gold(stage.params),
        work.batching,
        seed=stage.params.seed,
        store=store,
        recorder=stage.tracker,
    )


def _online(work: Bench, chosen: RLPlan, policy: nn.Module, draws: Sampler, store: Store) -> Rows:
    stage = work.stage
    critic = None
    if chosen.algo.value_loss is not None:
        body = new_critic(stage.path("models/sft"), work.device)
        critic = learner(body, stage.params.model.adapter, scorer=True)
    trainer = RLTrainer(
        chosen,
        policy,
        reference_of(policy),
        critic,
        draws,
        reward(work, chosen.budget.reward),
        gold(stage.params),
        work.batching,
        stage.params.seed,
    )
    return trainer.train(store, stage.tracker)
