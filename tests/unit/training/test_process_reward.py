"""Rewards at the ends of steps."""

import pytest
import torch

from rlpipe.dataio.chat import decode, prompt_ids, response_ids, token_ends
from rlpipe.models.load import new_reward_model, save
from rlpipe.rewards.steps import step_ends
from rlpipe.training.batching import Batching
from rlpipe.training.process_reward import LabelledSteps, StepRewards, step_probabilities, train_process_reward_model
from rlpipe.training.samples import samples_of
from rlpipe.types import Completion, Task

CPU = torch.device("cpu")
TEXTS = ["3+6=9 9-2=7", "1+1=3", "no step"]


@pytest.fixture
def batching(tokenizer):
    return Batching(tokenizer.pad_token_id, CPU, "float32", 64)


def test_a_step_ends_at_the_token_that_completes_it(tokenizer):
    ids = response_ids(tokenizer, "3+6=9 9-2=7")
    ends = token_ends(tokenizer, ids, [5, 11])
    assert [decode(tokenizer, ids[: end + 1]) for end in ends] == ["3+6=9", "3+6=9 9-2=7"]


def test_the_reward_stands_at_the_ends_of_steps_and_is_shared_among_them(tiny, tokenizer, batching, tmp_path):
    save(tiny, tokenizer, tmp_path / "sft")
    torch.manual_seed(0)
    model = new_reward_model(tmp_path / "sft", CPU)
    completions = [Completion(ids := response_ids(tokenizer, t), (0.0,) * len(ids), True) for t in TEXTS]
    prompts = [prompt_ids(tokenizer, "1+1")] * 3
    tasks = [Task("t", "1+1", "2")] * 3
    samples = samples_of(tasks, prompts, completions, TEXTS, torch.tensor([0, 0, 0]), batching)
    rewards = StepRewards(model, tokenizer, step_ends, batching, weight=3.0)(samples)
    rows = [LabelledSteps(prompts[0], completions[0].ids, (4, 10), (1.0, 1.0))]
    first, second = step_probabilities(model, rows, batching)[0]
    expected = torch.zeros(len(completions[0].ids))
    expected[4], expected[10] = 3 * first / 2, 3 * second / 2  # two steps share
    torch.testing.assert_close(rewards[0, : len(expected)], expected)
    assert (rewards[1] != 0).nonzero().flatten().tolist() == [4]
    assert rewards[2].abs().sum() == 0


class _NoStore:
    def restore(self, states):
        return 0, []

    def save(self, steps, rows, states):
        pass


class _Silent:
    def metrics(self, step, values):
        pass


def test_it_learns_to_tell_right_steps_from_wrong_ones(tiny, tokenizer, batching, tmp_path):
    from rlpipe.config.schema import Supervised

    save(tiny, tokenizer, tmp_path / "sft")
    torch.manual_seed(0)
    model = new_reward_model(tmp_path / "sft", CPU)
    prompt = prompt_ids(tokenizer, "1+1")
    rows = [
        LabelledSteps(prompt, response_ids(tokenizer, f"{a}+1={a + 1 + slip}"), (4,), (float(slip == 0),))
        for a in range(1, 7)
        for slip in (0, 2)
    ]
    optim = {"lr": 1e-2, "schedule": "linear", "warmup_steps": 5, "weight_decay": 0.0, "max_grad_norm": 1.0}
    settings = Supervised(steps=100, batch_size=12, optim=optim)
    table = train_process_reward_model(model, rows, settings, batching, seed=0, store=_NoStore(), recorder=_Silent())
    assert table[-1]["process_reward_model/accuracy"] == 1
    assert table[-1]["process_reward_model/loss"] < 0.2 < table[0]["process_reward_model/loss"]
