"""GRPO with vLLM as the sampler: it learns, killed and resumed it gives the same bits, what differs is measured."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_decoders import EOS, decoder, settings

from rlpipe.algos.plan import plan
from rlpipe.algos.sections import section
from rlpipe.checkpoint.store import Store
from rlpipe.config import parse
from rlpipe.config.schema import Adapter, Correction, Policy
from rlpipe.errors import GateError
from rlpipe.models.learner import Snapshot, learner, reference_of
from rlpipe.rewards.compose import compose
from rlpipe.rollout.vllm_engine import VLLMEngine
from rlpipe.training.batching import Batching
from rlpipe.training.collect import Collector
from rlpipe.training.critic import NoCritic
from rlpipe.training.encode import encode_tasks
from rlpipe.training.rl import RLTrainer
from rlpipe.training.samples import Sampler
from rlpipe.training.watch import Watch
from rlpipe.types import Sampling, Task

CPU = torch.device("cpu")
TEXT = (Path(__file__).resolve().parents[2] / "params.yaml").read_text()
TASKS = [Task(str(i), f"{i}+{i}", str(2 * i)) for i in range(9)]
OPTIM = {"lr": 3e-3, "schedule": "constant", "warmup_steps": 1, "weight_decay": 0.0, "max_grad_norm": 1.0}


class _KilledError(Exception):
    pass


class _Recorder:
    def __init__(self, plug=None):
        self.plug = plug

    def metrics(self, step, values):
        if step == self.plug:
            raise _KilledError


def _sevens(tasks, texts):
    """A reward that is learned in a few steps: the share of a text that is the digit 7."""
    return [text.count("7") / 12 for text in texts]


def _trainer(model, tokenizer, folder, steps, sampling, correction=None, sampler_of=None):
    budget = {"steps": steps, "prompts_per_step": 4, "group_size": 8, "epochs": 1, "minibatches": 1,
              "optim": OPTIM}  # fmt: skip
    params = parse(TEXT)
    written = {key: value for key, value in section("grpo", params.recipe).items() if key != "token_budget"}
    chosen = plan("grpo", Policy(**{**written, **budget}), params.rollout)
    batching = Batching(tokenizer.pad_token_id, CPU, "float32", 512)
    eos_ids = EOS | {tokenizer.eos_token_id}
    engine = VLLMEngine(sampler_of or model, eos_ids, CPU, "float32", 32, settings(), sampling, folder)
    sampler = Sampler(engine, tokenizer, encode_tasks(TASKS, tokenizer, 96, 12), sampling, batching, 17)
    reward = compose({"sevens": 1.0}, {"sevens": _sevens})
    collector = Collector(sampler, reward, reward, chosen.budget, batching, 17)
    watch = Watch(params.watch, Snapshot(model), None)
    return RLTrainer(
        chosen, model, reference_of(model), NoCritic(None), collector, None, watch, batching, 17, correction
    )


@pytest.mark.parametrize("adapter", [None, Adapter(rank=8, alpha=16, dropout=0.0)], ids=["full", "lora"])
def test_grpo_learns(tokenizer, tmp_path, adapter):
    model = learner(decoder(), adapter)
    with Store(tmp_path / "store", "key", 100) as store:
        rows = _trainer(model, tokenizer, tmp_path / "w", 20, Sampling(1.0, 12)).train(store, _Recorder())
    rewards = [row["reward/score_mean"] for row in rows]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
    # At every step it sampled from the weights of that step: nothing but rounding is between it and the trainer.
    assert all(row["kl/rollout_train"] < 1e-6 for row in rows)
    assert all(abs(row["is/rollout_ratio_max"] - 1) < 1e-3 for row in rows)
    assert all(
        row["is/rollout_ratio_p01"] <= row["is/rollout_ratio_p50"] <= row["is/rollout_ratio_p99"] for row in rows
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_killed_and_resumed_equals_never_killed(tokenizer, tmp_path, temperature):
    start, correction = decoder(), Correction(level="token", mode="truncate", cap=2.0)

    def run(name, recorder):
        """In a process of its own, as far as the engine goes: a new model, a new engine."""
        model = copy.deepcopy(start)
        trainer = _trainer(model, tokenizer, tmp_path / "w", 5, Sampling(temperature, 12), correction)
        with Store(tmp_path / name, "key", 2) as store:
            return trainer.train(store, recorder), model.state_dict()

    rows, weights = run("whole", _Recorder())
    with pytest.raises(_KilledError):
        run("killed", _Recorder(plug=3))
    resumed_rows, resumed_weights = run("killed", _Recorder())
    assert resumed_rows == rows
    assert all(torch.equal(weights[name], resumed_weights[name]) for name in weights)


def test_a_sampler_of_other_weights_does_not_pass_the_gate(tokenizer, tmp_path):
    model = decoder()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(1.1)
    trainer = _trainer(model, tokenizer, tmp_path / "w", 1, Sampling(1.0, 12), sampler_of=other)
    with pytest.raises(GateError, match="trainer and sampler"), Store(tmp_path / "s", "key", 9) as store:
        trainer.train(store, _Recorder())
