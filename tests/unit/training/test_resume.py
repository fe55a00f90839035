"""Interrupted and resumed equals never interrupted, bit for bit, for every trainer."""

import copy
import math
from pathlib import Path

import pytest
import torch

from rlpipe.algos.plan import plan
from rlpipe.algos.sections import section, sectionable
from rlpipe.checkpoint.store import Store
from rlpipe.config import parse
from rlpipe.config.schema import Adapter, Policy, RewardModel, Sentinel, Supervised
from rlpipe.models.heads import new_value_head
from rlpipe.models.learner import Snapshot, learner, reference_of
from rlpipe.models.load import new_critic, new_reward_model, save
from rlpipe.rewards.compose import compose
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.training.adaptive import RunningMean
from rlpipe.training.batching import Batching
from rlpipe.training.collect import Collector
from rlpipe.training.critic import HeadCritic, NoCritic, SeparateCritic
from rlpipe.training.distillation import DistillationTrainer
from rlpipe.training.encode import EncodedPairs, encode_demonstrations, encode_tasks
from rlpipe.training.improve import updates_of
from rlpipe.training.measure import Measure
from rlpipe.training.preference import PreferenceTrainer
from rlpipe.training.process_reward import LabelledSteps, train_process_reward_model
from rlpipe.training.reward_model import train_reward_model
from rlpipe.training.rl import RLTrainer
from rlpipe.training.samples import Sampler
from rlpipe.training.sft import train_sft
from rlpipe.training.watch import Watch, canaries
from rlpipe.types import Demonstration, Sampling, Task

CPU = torch.device("cpu")
TEXT = (Path(__file__).resolve().parents[3] / "params.yaml").read_text()
STEPS = 5
ROWS = [Demonstration(str(i), f"{i}+{i}", f"<think>{i}+{i}={2 * i}</think><answer>{2 * i}</answer>") for i in range(9)]
WRONG = [Demonstration(str(i), f"{i}+{i}", f"<think>{i}+{i}=1</think><answer>1</answer>") for i in range(9)]
TASKS = [Task(row.id, row.prompt, str(2 * i)) for i, row in enumerate(ROWS)]


class _KilledError(Exception):
    pass


class _Recorder:
    """Counts steps, and pulls the plug at one of them."""

    def __init__(self, plug=None):
        self.plug, self.steps = plug, []

    def metrics(self, step, values):
        self.steps.append(step)
        if step == self.plug:
            raise _KilledError


SMALL = {
    "steps": STEPS, "batch_size": 4, "measure_every": 2, "measure_prompts": 4,
    "prompts_per_step": 2, "group_size": 3,
    "optim": {"lr": 1e-2, "schedule": "cosine", "warmup_steps": 1, "weight_decay": 0.01, "max_grad_norm": 1.0},
}  # fmt: skip
SUPERVISED = {key: SMALL[key] for key in ("steps", "batch_size", "optim")}
# What remembers from step to step beyond a learner: each must survive a kill.
VARIANTS = {
    "adaptive": ("grpo", {"kl_coef": 0.1, "kl_control": "doubling", "kl_target": 0.01}),
    "running_reward": ("grpo", {"reward_norm": "running", "reward_clip": 1.0}),
    "refreshed": ("grpo", {"reference_refresh_steps": 2, "kl_estimator": "exact"}),
    "resampled": ("rloo", {"resample_rounds": 1}),
    "warming": ("a2c", {"critic_warmup_steps": 1}),
    "best": ("grpo", {}),
    "best_of_pairs": ("dpo", {}),
    "stopped": ("grpo", {}),
}


def _plan(name):
    """The algorithm as `rlpipe run --algos` writes it, on a budget of seconds."""
    params = parse(TEXT)
    algorithm, extra = VARIANTS.get(name, (name, {}))
    written = section(algorithm, params.recipe)
    small = {key: value for key, value in SMALL.items() if key in written}
    return plan(name, Policy(**{**written, **small, **extra}), params.rollout)


@pytest.fixture
def bench(tokenizer):
    return Batching(tokenizer.pad_token_id, CPU, "float32", 64)


def _pairs(tokenizer):
    chosen = encode_demonstrations(ROWS, tokenizer, 96).examples
    return EncodedPairs(chosen, encode_demonstrations(WRONG, tokenizer, 96).examples, [1.0] * len(chosen), 0)


def _sampler(model, tokenizer, batching):
    engine = TransformersEngine(model, frozenset({tokenizer.eos_token_id}), CPU, 64)
    return Sampler(engine, tokenizer, encode_tasks(TASKS, tokenizer, 96, 8), Sampling(1.0, 8), batching, 17)


def _digits(tasks, texts):
    """A reward with spread on random text: the share of digits."""
    return [sum(c.isdigit() for c in text) / 10 for text in texts]


def _letters(tasks, texts):
    """A held-out reward that differs between steps: the share of distinct characters."""
    return [len(set(text)) / 10 for text in texts]


HELDOUT = compose({"letters": 1.0}, {"letters": _letters})


def _watch(name, model, asked):
    """A watch that keeps the best weights of the variants so called, and stops the variant `stopped`."""
    settings = parse(TEXT).watch
    limits = {"length": Sentinel(limit=1.0001, action="stop")} if name == "stopped" else {}
    sentinels = settings.sentinels.model_copy(update=limits)
    changes = {"window": 2, "keep": "best" if name.startswith("best") else "last", "sentinels": sentinels}
    return Watch(settings.model_copy(update=changes), Snapshot(model), asked)


def _measure(name, model, tokenizer, batching):
    sampler, watch = _sampler(model, tokenizer, batching), _watch(name, model, None)
    return Measure(model, reference_of(model), sampler, HELDOUT, watch, batching, 2, 4)


def _critic(chosen, model, folder, batching):
    torch.manual_seed(3)
    match chosen.algo.baseline:
        case "critic":
            return SeparateCritic(new_critic(folder, CPU), chosen, updates_of(chosen), batching)
        case "critic_head":
            return HeadCritic(model, new_value_head(model, CPU), batching)
        case "running_mean":
            return NoCritic(RunningMean(0.9))
        case "none":
            return NoCritic(None)


def _online(name, folder, tokenizer, batching):
    def train(model, store, recorder):
        chosen = _plan(name)
        reward = compose({"digits": 1.0}, {"digits": _digits})
        collector = Collector(_sampler(model, tokenizer, batching), reward, HELDOUT, chosen.budget, batching, 17)
        critic, watch = _critic(chosen, model, folder, batching), _watch(name, model, canaries(reward, 2))
        trainer = RLTrainer(chosen, model, reference_of(model), critic, collector, None, watch, batching, 17)
        return trainer.train(store, recorder), watch.conclude()

    return train


def _offline(name, tokenizer, batching):
    def train(model, store, recorder):
        measure = _measure(name, model, tokenizer, batching)
        trainer = PreferenceTrainer(_plan(name), model, measure.reference, _pairs(tokenizer), measure, batching)
        return trainer.train(17, store, recorder), measure.watch.conclude()

    return train


def _distilled(name, tokenizer, batching):
    def train(model, store, recorder):
        teacher = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.5)
        chosen, measure = _plan(name), _measure(name, model, tokenizer, batching)
        source = model if chosen.algo.samples_of == "student" else teacher
        sampler = _sampler(source, tokenizer, batching)
        trainer = DistillationTrainer(chosen, model, teacher, sampler, measure, batching, 17)
        return trainer.train(store, recorder), measure.watch.conclude()

    return train


def _supervised(name, tokenizer, batching):
    """sft, reward_model, process_reward_model."""
    examples = encode_demonstrations(ROWS, tokenizer, 96).examples
    settings = Supervised(**SUPERVISED)
    options = {"batching": batching, "seed": 17}
    if name == "sft":
        return lambda model, store, recorder: (
            train_sft(model, examples, settings, store=store, recorder=recorder, **options), {}
        )  # fmt: skip
    if name == "reward_model":
        named = {"learns_from": "data/pairs/gold", "starts_from": "models/sft"}
        ranked = RewardModel(**named, **SUPERVISED, temperature=1.0, margin_coef=0.5, centring_coef=0.01)
        return lambda model, store, recorder: (
            train_reward_model(model, _pairs(tokenizer), ranked, store=store, recorder=recorder, **options), {}
        )  # fmt: skip
    steps = [LabelledSteps(prompt, ids, (3, len(ids) - 1), (1.0, float(i % 2))) for i, (prompt, ids) in
             enumerate(examples)]  # fmt: skip
    return lambda model, store, recorder: (
        train_process_reward_model(model, steps, settings, store=store, recorder=recorder, **options), {}
    )  # fmt: skip


SCORERS = ("reward_model", "process_reward_model")
ALL = ["sft", *SCORERS, *sectionable(), *VARIANTS]


def _trainer(name, folder, tokenizer, batching):
    """train(model, store, recorder) -> rows, what was watched: for a trainer, an algorithm or a variant of one."""
    if name in ("sft", *SCORERS):
        return _supervised(name, tokenizer, batching)
    kind = type(_plan(name)).__name__
    if kind == "RLPlan":
        return _online(name, folder, tokenizer, batching)
    return (_offline if kind == "PreferencePlan" else _distilled)(name, tokenizer, batching)


@pytest.mark.parametrize("name", ALL)
def test_resumed_equals_never_interrupted(name, tiny, tokenizer, bench, tmp_path):
    save(tiny, tokenizer, tmp_path / "sft")
    train = _trainer(name, tmp_path / "sft", tokenizer, bench)
    torch.manual_seed(1)
    start = new_reward_model(tmp_path / "sft", CPU) if name in SCORERS else learner(tiny, None)

    whole = copy.deepcopy(start)
    with Store(tmp_path / "a", "key", 2) as store:
        rows, found = train(whole, store, _Recorder())

    killed = copy.deepcopy(start)
    with pytest.raises(_KilledError), Store(tmp_path / "b", "key", 2) as store:
        train(killed, store, _Recorder(plug=3))
    resumed, recorder = copy.deepcopy(start), _Recorder()
    with Store(tmp_path / "b", "key", 2) as store:
        resumed_rows, resumed_found = train(resumed, store, recorder)

    assert recorder.steps == [row["step"] for row in rows[2:]]  # it went on from the checkpoint after two steps
    assert len(rows) == (4 if name == "stopped" else STEPS)
    assert resumed_rows == rows
    assert resumed_found == found
    for (key, expected), got in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, got), key
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), whole.parameters(), strict=True))
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("name", ["sft", *sectionable()])
def test_every_algorithm_learns_an_adapter_and_leaves_the_weights_below_alone(name, tiny, tokenizer, bench, tmp_path):
    save(tiny, tokenizer, tmp_path / "sft")
    torch.manual_seed(1)
    model = learner(tiny, Adapter(rank=4, alpha=8, dropout=0.0))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with Store(tmp_path / "a", "key", STEPS + 1) as store:
        _trainer(name, tmp_path / "sft", tokenizer, bench)(model, store, _Recorder())
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all("lora" in key for key in changed)


def test_a_checkpoint_of_other_inputs_is_not_resumed(tiny, tokenizer, bench, tmp_path):
    train = _supervised("sft", tokenizer, bench)
    with pytest.raises(_KilledError), Store(tmp_path / "b", "key", 2) as store:
        train(copy.deepcopy(tiny), store, _Recorder(plug=3))
    recorder = _Recorder()
    with Store(tmp_path / "b", "other", 2) as store:
        train(copy.deepcopy(tiny), store, recorder)
    assert recorder.steps == [0, 1, 2, 3, 4]


def test_a_stage_that_ends_well_leaves_no_checkpoint(tiny, tokenizer, bench, tmp_path):
    with Store(tmp_path / "a", "key", 2) as store:
        _supervised("sft", tokenizer, bench)(tiny, store, _Recorder())
        assert (tmp_path / "a/key.pt").exists()
    assert not (tmp_path / "a").exists()
