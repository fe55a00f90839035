"""Online RL with a sampler whose arithmetic is not the trainer's: here the same model in bfloat16."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from rlpipe.algos.plan import plan
from rlpipe.algos.sections import section
from rlpipe.checkpoint.store import Store
from rlpipe.config import parse
from rlpipe.config.schema import Correction, Policy
from rlpipe.models.learner import Snapshot, reference_of
from rlpipe.models.runtime import precision
from rlpipe.rewards.compose import compose
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.training.batching import Batching
from rlpipe.training.collect import Collector
from rlpipe.training.critic import NoCritic
from rlpipe.training.encode import encode_tasks
from rlpipe.training.rl import RLTrainer
from rlpipe.training.samples import Sampler
from rlpipe.training.watch import Watch
from rlpipe.types import Sampling, Task

CPU = torch.device("cpu")
TEXT = (Path(__file__).resolve().parents[3] / "params.yaml").read_text()
TASKS = [Task(str(i), f"{i}+{i}", str(2 * i)) for i in range(9)]


@dataclass(frozen=True)
class _Rounding(TransformersEngine):
    """Samples in bfloat16, and remembers what it was told."""

    exact: ClassVar[bool] = False
    told: list[str] = field(default_factory=list)

    def refresh(self):
        self.told.append("refresh")

    def generate(self, requests, sampling):
        self.told.append("draw")
        return super().generate(requests, sampling)


class _Recorder:
    def metrics(self, step, values): ...


def _digits(tasks, texts):
    return [sum(c.isdigit() for c in text) / 10 for text in texts]


def _trained(model, tokenizer, folder, correction=None, engine=_Rounding, temperature=1.0, **changes):
    """Rows, weights and the engine after two steps."""
    model, params = copy.deepcopy(model), parse(TEXT)
    small = {"steps": 2, "prompts_per_step": 4, "group_size": 4, "epochs": 1, "minibatches": 1}
    written = {**section("grpo", params.recipe), **small, **changes}
    chosen = plan("grpo", Policy(**written), params.rollout)
    batching = Batching(tokenizer.pad_token_id, CPU, "float32", 512)
    how = {"precision": lambda: precision(CPU, "bfloat16")} if engine is _Rounding else {}
    drawing = engine(model, frozenset({tokenizer.eos_token_id}), CPU, 64, **how)
    sampler = Sampler(drawing, tokenizer, encode_tasks(TASKS, tokenizer, 96, 8), Sampling(temperature, 8), batching, 17)
    reward = compose({"digits": 1.0}, {"digits": _digits})
    collector = Collector(sampler, reward, reward, chosen.budget, batching, 17)
    watch = Watch(params.watch, Snapshot(model), None)
    trainer = RLTrainer(
        chosen, model, reference_of(model), NoCritic(None), collector, None, watch, batching, 17, correction
    )
    with Store(folder, "key", 9) as store:
        rows = trainer.train(store, _Recorder())
    return rows, model, drawing


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_ratios_start_at_1_and_what_differs_is_measured(tiny, tokenizer, tmp_path, temperature):
    rows, _, _ = _trained(tiny, tokenizer, tmp_path / "a", temperature=temperature)
    for row in rows:
        assert row["policy/ratio_mean"] == pytest.approx(1, abs=1e-6)  # old log-probs are the trainer's own
        assert row["kl/old_new"] == pytest.approx(0, abs=1e-9)
        assert 0 < row["kl/rollout_train"] < 1e-4
        assert row["is/rollout_ratio_min"] < row["is/rollout_ratio_p01"] < 1 < row["is/rollout_ratio_p99"]
        assert row["is/rollout_ratio_p99"] < row["is/rollout_ratio_max"]


def test_an_exact_sampler_is_not_compared_a_second_time(tiny, tokenizer, tmp_path):
    rows, _, _ = _trained(tiny, tokenizer, tmp_path / "a", engine=TransformersEngine)
    assert not [name for row in rows for name in row if name.startswith("is/rollout")]
    assert all("kl/rollout_train" in row for row in rows)


def test_a_sampler_is_told_of_new_weights_before_each_draw(tiny, tokenizer, tmp_path):
    _, _, engine = _trained(tiny, tokenizer, tmp_path / "a")
    assert engine.told == ["refresh", "draw"] * 2


def test_a_correction_moves_the_weights_and_a_cap_below_every_ratio_stops_them(tiny, tokenizer, tmp_path):
    _, plain, _ = _trained(tiny, tokenizer, tmp_path / "a")
    rows, weighted, _ = _trained(
        tiny, tokenizer, tmp_path / "b", Correction(level="sequence", mode="truncate", cap=2.0)
    )
    assert not torch.equal(plain.lm_head.weight, weighted.lm_head.weight)
    assert all(row["is/correction_cut_frac"] == 0 for row in rows)
    assert all(row["is/correction_mean"] == pytest.approx(1, abs=0.01) for row in rows)
    # Everything above a cap of 0.5 is masked, so nothing but the KL term is left, which starts at 0.
    rows, masked, _ = _trained(tiny, tokenizer, tmp_path / "c", Correction(level="token", mode="mask", cap=0.5))
    assert all(row["is/correction_cut_frac"] == 1 and row["is/correction_mean"] == 0 for row in rows)
    assert rows[0]["policy/surrogate"] == 0
    for before, after in zip(tiny.parameters(), masked.parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)
