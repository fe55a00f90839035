"""Stage `policy@NAME`: the weights it starts from and what it learns from -> models/NAME."""

from __future__ import annotations

from torch import nn

from rlpipe.algos.plan import DistillationPlan, PreferencePlan, RLPlan, SupervisedPlan, plan
from rlpipe.checkpoint.store import Rows, Store
from rlpipe.config.schema import DistillationBudget, OfflineBudget
from rlpipe.dataio.files import write_metrics, write_table
from rlpipe.dataio.prepared import PREPARED, SHOWN, TASKS, TRAIN, read_demonstrations_in, read_tasks, read_train_pairs
from rlpipe.models.heads import new_value_head
from rlpipe.models.learner import Reference, Snapshot, reference_of
from rlpipe.models.load import load_policy, load_teacher, new_critic, save
from rlpipe.rewards.compose import stopping
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import Bench, bench
from rlpipe.stages.judging import Asked, asking
from rlpipe.stages.process_rewarding import process_reward
from rlpipe.stages.resume import resumable
from rlpipe.stages.rewarding import JUDGE, PROCESS, composed
from rlpipe.stages.sampling import sampler
from rlpipe.training.adaptive import RunningMean
from rlpipe.training.collect import Collector
from rlpipe.training.critic import Critic, HeadCritic, NoCritic, SeparateCritic
from rlpipe.training.distillation import DistillationTrainer
from rlpipe.training.encode import encode_demonstrations, encode_pairs, encode_tasks
from rlpipe.training.improve import updates_of
from rlpipe.training.measure import Measure
from rlpipe.training.preference import PreferenceTrainer
from rlpipe.training.rl import RLTrainer
from rlpipe.training.samples import Sampler
from rlpipe.training.supervised import SupervisedTrainer
from rlpipe.training.watch import Watch, canaries

# The steps' metrics, and what was watched.
Trained = tuple[Rows, Watch]


def run(stage: Stage) -> None:
    """Train the policy that the section describes; its reference is the model it starts from."""
    params, section = stage.params, stage.params.policy[stage.item]
    chosen = plan(stage.item, section, params.rollout)
    work = bench(stage, stage.path(section.starts_from), params.seed)
    policy = work.learner(load_policy(stage.path(section.starts_from), work.device))
    tasks = encode_tasks(read_tasks(stage.root), work.tokenizer, params.model.max_length, params.rollout.max_new_tokens)
    stage.tracker.dataset("tasks", stage.path(TASKS))
    draws = sampler(work, policy, tasks)
    judged = JUDGE in params.watch.heldout or (isinstance(chosen, RLPlan) and JUDGE in chosen.budget.reward)
    with (
        resumable(stage, PREPARED, section.starts_from, section.learns_from) as store,
        asking(work, needed=judged) as asked,
    ):
        store.keep(asked.states)
        if isinstance(chosen, RLPlan):
            rows, watch = _online(work, chosen, policy, draws, store, asked)
        elif isinstance(chosen, PreferencePlan):
            rows, watch = _from_pairs(work, chosen, policy, draws, store, asked)
        elif isinstance(chosen, SupervisedPlan):
            rows, watch = _from_demonstrations(work, chosen, policy, draws, store, asked)
        else:
            rows, watch = _from_teacher(work, chosen, policy, draws, store, asked)
        found = watch.conclude()
        save(policy, work.tokenizer, stage.path(f"models/{stage.item}"))
        write_table(stage.path(f"plots/policy/{stage.item}.csv"), rows)
        metrics = {**rows[-1], **asked.counts()}
        write_metrics(stage.path(f"metrics/policy/{stage.item}.json"), {**metrics, "watch": found})
        stage.tracker.summary(metrics)


def _online(work: Bench, chosen: RLPlan, policy: nn.Module, draws: Sampler, store: Store, asked: Asked) -> Trained:
    params, budget = work.stage.params, chosen.budget
    learned_at = params.policy[work.stage.item].learns_from
    whole = composed(work, budget.reward, judge=asked.judge, learned_at=learned_at)
    heldout = composed(work, params.watch.heldout, judge=asked.judge)
    scorer = stopping(whole, params.rewards.max_missing)
    collector = Collector(draws, scorer, heldout, budget, work.batching, params.seed)
    # A process reward model scores steps, and a canary has none.
    scores_texts = params.watch.canary_prompts > 0 and set(budget.reward) != {PROCESS}
    tested = canaries(whole, params.watch.canary_prompts) if scores_texts else None
    watch = Watch(params.watch, Snapshot(policy), tested)
    trainer = RLTrainer(
        chosen,
        policy,
        reference_of(policy),
        _critic(work, chosen, policy),
        collector,
        process_reward(work, budget.reward),
        watch,
        work.batching,
        params.seed,
        params.rollout.correction,
    )
    return trainer.train(store, work.stage.tracker), watch


def _critic(work: Bench, chosen: RLPlan, policy: nn.Module) -> Critic:
    """Where the plan's value estimates come from."""
    stage = work.stage
    match chosen.algo.baseline:
        case "critic":
            start = stage.path(stage.params.policy[stage.item].starts_from)
            body = work.learner(new_critic(start, work.device), scorer=True)
            return SeparateCritic(body, chosen, updates_of(chosen), work.batching)
        case "critic_head":
            head = new_value_head(policy, work.device)
            return HeadCritic(policy, head, work.batching)
        case "running_mean":
            return NoCritic(RunningMean(chosen.numbers["baseline_decay"]))
        case "none":
            return NoCritic(None)


def _from_pairs(
    work: Bench, chosen: PreferencePlan, policy: nn.Module, draws: Sampler, store: Store, asked: Asked
) -> Trained:
    stage = work.stage
    folder = stage.path(stage.params.policy[stage.item].learns_from)
    stage.tracker.dataset("pairs", folder / TRAIN)
    pairs = encode_pairs(read_train_pairs(folder), work.tokenizer, stage.params.model.max_length)
    reference = reference_of(policy)
    measure = _measure(work, chosen.budget, policy, reference, draws, asked)
    trainer = PreferenceTrainer(chosen, policy, reference, pairs, measure, work.batching)
    return trainer.train(stage.params.seed, store, stage.tracker), measure.watch


def _from_demonstrations(
    work: Bench, chosen: SupervisedPlan, policy: nn.Module, draws: Sampler, store: Store, asked: Asked
) -> Trained:
    stage = work.stage
    folder = stage.path(stage.params.policy[stage.item].learns_from)
    stage.tracker.dataset("demonstrations", folder / SHOWN)
    encoded = encode_demonstrations(read_demonstrations_in(folder), work.tokenizer, stage.params.model.max_length)
    measure = _measure(work, chosen.budget, policy, reference_of(policy), draws, asked)
    trainer = SupervisedTrainer(chosen, policy, encoded.examples, measure, work.batching)
    return trainer.train(stage.params.seed, store, stage.tracker), measure.watch


def _from_teacher(
    work: Bench, chosen: DistillationPlan, policy: nn.Module, draws: Sampler, store: Store, asked: Asked
) -> Trained:
    stage = work.stage
    teacher = load_teacher(stage.path(stage.params.policy[stage.item].learns_from), work.tokenizer, work.device)
    measure = _measure(work, chosen.budget, policy, reference_of(policy), draws, asked)
    source = draws if chosen.algo.samples_of == "student" else sampler(work, teacher, draws.tasks, "teacher")
    trainer = DistillationTrainer(chosen, policy, teacher, source, measure, work.batching, stage.params.seed)
    return trainer.train(store, stage.tracker), measure.watch


def _measure(
    work: Bench,
    budget: OfflineBudget | DistillationBudget,
    policy: nn.Module,
    reference: Reference,
    draws: Sampler,
    asked: Asked,
) -> Measure:
    settings = work.stage.params.watch
    return Measure(
        policy,
        reference,
        draws,
        composed(work, settings.heldout, judge=asked.judge),
        Watch(settings, Snapshot(policy), None),
        work.batching,
        every=budget.measure_every,
        prompts=budget.measure_prompts,
    )
