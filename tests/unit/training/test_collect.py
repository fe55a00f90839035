"""Drawing and scoring a step's samples; replacing prompts that teach nothing; older samples."""

import pytest
import torch

from rlpipe.config.schema import RLBudget
from rlpipe.errors import RewardError
from rlpipe.rollout.engine import TransformersEngine
from rlpipe.training.batching import Batching
from rlpipe.training.collect import Collector, spread_groups
from rlpipe.training.encode import encode_tasks
from rlpipe.training.experience import Experience, Replay
from rlpipe.training.samples import Sampler, joined
from rlpipe.types import Sampling, Scored, Task

CPU = torch.device("cpu")
TASKS = [Task(str(i), f"{i}+{i}", str(2 * i)) for i in range(9)]


def _scored(total):
    return Scored(total, {}, "" if total is not None else "nobody knows")


@pytest.fixture
def collector(tiny, tokenizer):
    """make(reward, **budget): 3 prompts of 2 samples a step."""

    def make(reward, **changes):
        batching = Batching(tokenizer.pad_token_id, CPU, "float32", 64)
        engine = TransformersEngine(tiny, frozenset({tokenizer.eos_token_id}), CPU, 64)
        sampler = Sampler(engine, tokenizer, encode_tasks(TASKS, tokenizer, 96, 6), Sampling(1.0, 6), batching, 17)
        settings = {
            "reward": {"x": 1.0}, "steps": 9, "prompts_per_step": 3, "group_size": 2, "epochs": 1, "minibatches": 1,
            "optim": {"lr": 1.0, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1.0},
        }  # fmt: skip
        return Collector(sampler, reward, reward, RLBudget(**settings | changes), batching, 17)

    return make


def _alternating(tasks, texts):
    """Siblings differ for prompts with an even number, and are alike for odd ones."""
    return [_scored(float(row % 2 if int(task.id) % 2 == 0 else 1)) for row, task in enumerate(tasks)]


def test_a_step_draws_each_prompt_as_often_as_asked(collector):
    collected = collector(_alternating).collect(0)
    assert collected.samples.group_B.tolist() == [0, 0, 1, 1, 2, 2]
    assert collected.tokens == sum(len(c.ids) for c in collected.samples.completions)


def test_a_sample_without_a_score_is_left_out_and_counted(collector):
    def reward(tasks, texts):
        return [_scored(None if row == 1 else 1.0) for row in range(len(texts))]

    collected = collector(reward).collect(0)
    assert len(collected.score_B) == 5
    assert collected.samples.group_B.tolist() == [0, 1, 1, 2, 2]
    assert collected.metrics["reward/missing_frac"] == pytest.approx(1 / 6)
    assert collected.tokens > sum(len(c.ids) for c in collected.samples.completions)  # drawn all the same


def test_a_step_without_any_score_stops(collector):
    with pytest.raises(RewardError, match="nobody knows"):
        collector(lambda _, texts: [_scored(None) for _ in texts]).collect(0)


def test_prompts_without_a_spread_are_replaced(collector):
    plain, dynamic = collector(_alternating), collector(_alternating, resample_rounds=4)
    assert any(int(task.id) % 2 for task in plain.collect(0).samples.tasks)
    collected = dynamic.collect(0)
    assert len(collected.samples.texts) == 6
    assert all(int(task.id) % 2 == 0 for task in collected.samples.tasks)
    assert spread_groups(collected.score_B, collected.samples.group_B) == sorted(
        set(collected.samples.group_B.tolist())
    )
    assert collected.metrics["reward/prompts_kept"] == 3
    assert collected.tokens > sum(len(c.ids) for c in collected.samples.completions)


def test_where_no_prompt_has_a_spread_the_first_draw_is_kept(collector):
    collected = collector(lambda _, texts: [_scored(1.0) for _ in texts], resample_rounds=1).collect(0)
    assert collected.metrics["reward/prompts_kept"] == 0
    assert len(collected.samples.texts) == 6


def test_rounds_draw_other_samples_of_the_same_prompt(collector):
    sampler = collector(_alternating).sampler
    first, second = sampler.draw([0], 2, 5), sampler.draw([0], 2, 5, first=2)
    assert len({c.ids for part in (first, second) for c in part.completions}) == 4


def test_joined_draws_keep_their_groups_apart_and_their_log_probs(collector):
    made = collector(_alternating)
    parts = [made.sampler.draw([0, 1], 2, 0), made.sampler.draw([2], 2, 0)]
    whole = joined(parts, made.batching)
    assert whole.group_B.tolist() == [0, 0, 1, 1, 2, 2]
    for row, completion in enumerate(whole.completions):
        assert whole.sampler_logp_BT[row, : len(completion.logps)].tolist() == pytest.approx(completion.logps)


def _experience(collector, number):
    samples = collector.collect(number).samples
    zero = torch.zeros_like(samples.sampler_logp_BT)
    return Experience(samples.batch, samples.group_B, samples.sampler_logp_BT, zero, zero, zero, zero, born=number)


def test_a_buffer_gives_the_fresh_experience_and_older_ones_of_its_last_steps(collector):
    made = collector(_alternating)
    replay = Replay(steps=2, updates=3, seed=17)
    experiences = [_experience(made, number) for number in range(4)]
    learned = [[e.born for e in replay.learn_from(e, e.born)] for e in experiences]
    assert learned[0] == [0]
    assert learned[1] == [1, 0]
    assert learned[2][0] == 2
    assert sorted(learned[2][1:]) == [0, 1]
    assert sorted(learned[3][1:]) == [1, 2]  # step 0 has been dropped


def test_a_restored_buffer_is_the_same(collector):
    made = collector(_alternating)
    replay = Replay(2, 2, 17)
    replay.learn_from(_experience(made, 0), 0)
    restored = Replay(2, 2, 17)
    restored.load_state_dict(replay.state_dict())
    fresh = _experience(made, 1)
    for ours, theirs in zip(replay.learn_from(fresh, 1), restored.learn_from(fresh, 1), strict=True):
        torch.testing.assert_close(ours.old_logp_BT, theirs.old_logp_BT)
        assert ours.born == theirs.born
