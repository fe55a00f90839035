"""Interrupted and resumed equals never interrupted, bit for bit, for every trainer."""

import copy
from pathlib import Path

import pytest
import torch

from rlpipe.algos.plan import plans
from rlpipe.checkpoint.store import Store
from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.config.schema import Supervised
from rlpipe.models.learner import learner, reference_of
from rlpipe.models.load import new_critic, new_reward_model, save
from rlpipe.rewards.compose import compose
from rlpipe.rewards.registry import VERIFIERS
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.training.batching import Batching
from rlpipe.training.encode import EncodedPairs, encode_demonstrations, encode_tasks
from rlpipe.training.preference import train_preference
from rlpipe.training.reward_model import train_reward_model
from rlpipe.training.rl import RLTrainer
from rlpipe.training.samples import Sampler
from rlpipe.training.sft import train_sft
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


def _settings():
    return Supervised.model_validate(
        {
            "steps": STEPS, "batch_size": 4, "micro_batch_size": 2,
            "optim": {"lr": 1e-2, "schedule": "cosine", "warmup_steps": 1, "weight_decay": 0.01, "max_grad_norm": 1.0},
        }
    )  # fmt: skip


def _plan(name):
    changes = [f"policy.{name}.steps={STEPS}", f"policy.{name}.optim.lr=0.01", f"policy.{name}.micro_batch_size=3"]
    small = {"dpo": ["batch_size=4", "measure_every=2", "measure_prompts=4"],
             "ppo": ["prompts_per_step=4", "minibatches=2"],
             "grpo": ["prompts_per_step=2", "group_size=3"]}[name]  # fmt: skip
    return plans(parse(edited(TEXT, None, [*changes, *(f"policy.{name}.{c}" for c in small)])))[name]


@pytest.fixture
def bench(tokenizer):
    return Batching(tokenizer.pad_token_id, CPU, "float32")


def _pairs(tokenizer):
    chosen = encode_demonstrations(ROWS, tokenizer, 96).examples
    return EncodedPairs(chosen, encode_demonstrations(WRONG, tokenizer, 96).examples, 0)


def _sampler(model, tokenizer, batching):
    engine = TransformersEngine(model, frozenset({tokenizer.eos_token_id}), tokenizer.pad_token_id, CPU, 64)
    return Sampler(engine, tokenizer, encode_tasks(TASKS, tokenizer, 96, 8), Sampling(1.0, 8), batching, 17)


def _length(tasks, texts):
    """A reward with spread on random text: the share of digits."""
    return [sum(c.isdigit() for c in text) / 10 for text in texts]


def _trainers(tmp_path, tokenizer, batching):
    """name -> (fresh model, train(model, store, recorder))."""
    gold = compose({"math_answer": 1.0}, VERIFIERS)
    options = {"seed": 17}

    def sft(model, store, recorder):
        examples = encode_demonstrations(ROWS, tokenizer, 96).examples
        return train_sft(model, examples, _settings(), batching, store=store, recorder=recorder, **options)

    def reward_model(model, store, recorder):
        pairs = _pairs(tokenizer)
        return train_reward_model(model, pairs, _settings(), batching, store=store, recorder=recorder, **options)

    def dpo(model, store, recorder):
        reference, pairs = reference_of(model), _pairs(tokenizer)
        sampler = _sampler(model, tokenizer, batching)
        return train_preference(
            _plan("dpo"), model, reference, pairs, sampler, gold, batching, store=store, recorder=recorder, **options
        )

    def online(name):
        def train(model, store, recorder):
            torch.manual_seed(3)
            critic = new_critic(tmp_path / "sft", CPU) if name == "ppo" else None
            sampler = _sampler(model, tokenizer, batching)
            reward = compose({"digits": 1.0}, {"digits": _length})
            trainer = RLTrainer(_plan(name), model, reference_of(model), critic, sampler, reward, gold, batching, 17)
            return trainer.train(store, recorder)

        return train

    return {"sft": sft, "reward_model": reward_model, "dpo": dpo, "ppo": online("ppo"), "grpo": online("grpo")}


@pytest.mark.parametrize("name", ["sft", "reward_model", "dpo", "ppo", "grpo"])
def test_resumed_equals_never_interrupted(name, tiny, tokenizer, bench, tmp_path):
    save(tiny, tokenizer, tmp_path / "sft")
    train = _trainers(tmp_path, tokenizer, bench)[name]
    torch.manual_seed(1)
    start = new_reward_model(tmp_path / "sft", CPU) if name == "reward_model" else learner(tiny, None)

    whole = copy.deepcopy(start)
    with Store(tmp_path / "a", "key", 2) as store:
        rows = train(whole, store, _Recorder())

    killed = copy.deepcopy(start)
    with pytest.raises(_KilledError), Store(tmp_path / "b", "key", 2) as store:
        train(killed, store, _Recorder(plug=3))
    resumed, recorder = copy.deepcopy(start), _Recorder()
    with Store(tmp_path / "b", "key", 2) as store:
        resumed_rows = train(resumed, store, recorder)

    assert recorder.steps == [2, 3, 4]  # it went on from the checkpoint after two steps
    assert resumed_rows == rows
    for (key, expected), found in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, found), key
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), whole.parameters(), strict=True))


def test_a_checkpoint_of_other_inputs_is_not_resumed(tiny, tokenizer, bench, tmp_path):
    train = _trainers(tmp_path, tokenizer, bench)["sft"]
    with pytest.raises(_KilledError), Store(tmp_path / "b", "key", 2) as store:
        train(copy.deepcopy(tiny), store, _Recorder(plug=3))
    recorder = _Recorder()
    with Store(tmp_path / "b", "other", 2) as store:
        train(copy.deepcopy(tiny), store, recorder)
    assert recorder.steps == [0, 1, 2, 3, 4]


def test_a_stage_that_ends_well_leaves_no_checkpoint(tiny, tokenizer, bench, tmp_path):
    with Store(tmp_path / "a", "key", 2) as store:
        _trainers(tmp_path, tokenizer, bench)["sft"](tiny, store, _Recorder())
        assert (tmp_path / "a/key.pt").exists()
    assert not (tmp_path / "a").exists()
