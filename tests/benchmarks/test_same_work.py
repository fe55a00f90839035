"""Both sides of every benchmark compute the same, and the check says so when they do not."""

import pytest
import torch

from benchmarks import ours, trl_112, trl_now
from benchmarks.gradients import gap, require_same
from benchmarks.grpo import LIMIT


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_grpo_takes_the_same_two_steps(groups, dtype):
    """The second step has a KL to the reference, and its gradients are of weights that AdamW moved."""
    work = groups(dtype=dtype)
    mine = ours.online("grpo", work, steps=2, lr=ours.MOVING)
    peer = trl_now.grpo(work, mine.drawn, lr=ours.MOVING, size=8)
    require_same(mine.gradients, peer.gradients, LIMIT[dtype])


def test_grpo_on_an_adapter_takes_the_same_steps(groups):
    work = groups(rank=2)
    mine = ours.online("grpo", work, steps=2, lr=ours.MOVING)
    peer = trl_now.grpo(work, mine.drawn, lr=ours.MOVING, size=4)
    require_same(mine.gradients, peer.gradients, LIMIT["float32"])
    assert all("lora" in name for name in mine.gradients[0])


def test_a_larger_kl_weight_on_one_side_is_found_out(groups, monkeypatch):
    work = groups()
    mine = ours.online("grpo", work, steps=2, lr=1e-2)
    monkeypatch.setitem(ours.KL_COEF, "grpo", 1.0)
    peer = trl_now.grpo(work, mine.drawn, lr=1e-2, size=8)
    assert gap(mine.gradients[0], peer.gradients[0]) < LIMIT["float32"], "at the first step the KL is 0"
    with pytest.raises(AssertionError, match="differ"):
        require_same(mine.gradients, peer.gradients, LIMIT["float32"])


def test_ppo_takes_the_same_step_but_for_the_sample_deviation(groups):
    if not trl_112.FOLDER.is_dir():
        pytest.skip("TRL 1.12 is not there: make .trl112")
    work = groups(seed=3)
    mine = ours.online("ppo", work, steps=1, lr=ours.STILL)
    # What the peer takes for padding must not matter.
    assert any(0 in completion for _, completion in mine.drawn[0])
    peer = trl_112.Peer(work, 8)
    try:
        theirs = peer.step(mine.drawn[0]).gradients
    finally:
        peer.close()
    # Whitened advantages: n - 1 against n, on some 50 tokens.
    tokens = sum(len(completion) for _, completion in mine.drawn[0])
    scaled = [{name: g * (tokens / (tokens - 1)) ** 0.5 for name, g in step.items()} for step in theirs]
    require_same(mine.gradients, scaled, 1e-4)


@pytest.mark.parametrize(("packed", "size"), [(False, 4), (False, 2), (True, 4), (True, 1)])
def test_sft_takes_the_same_step(folder, rows, packed, size):
    mine = ours.sft(folder, rows, steps=1, lr=ours.STILL)
    peer = trl_now.sft(folder, rows, steps=1, lr=ours.STILL, packed=packed, size=size)
    require_same(mine.gradients, peer.gradients, 1e-4)


def test_dpo_takes_the_same_step(folder, pairs):
    mine = ours.dpo(folder, pairs, steps=1, lr=ours.STILL)
    require_same(mine.gradients, trl_now.dpo(folder, pairs, steps=1, lr=ours.STILL).gradients, 1e-4)


def test_a_reward_model_takes_the_same_step(folder, pairs):
    mine = ours.reward_model(folder, pairs, steps=1, lr=ours.STILL)
    require_same(mine.gradients, trl_now.reward_model(folder, pairs, steps=1, lr=ours.STILL).gradients, 1e-4)


def test_timing_leaves_the_weights_where_they_are(groups):
    """Every pair of a measurement is the same step: both steps' rollouts start from the same model."""
    once = ours.online("grpo", groups(), steps=1, lr=ours.STILL)
    again = ours.online("grpo", groups(), steps=2, lr=ours.STILL)
    assert once.drawn[0] == again.drawn[0]
    moved = ours.online("grpo", groups(), steps=2, lr=0.1)
    assert moved.drawn[1] != again.drawn[1]


def test_rewards_differ_inside_a_group(groups):
    drawn = ours.online("grpo", groups(), steps=1, lr=ours.STILL).drawn[0]
    for prompt in groups().prompts:
        completions = {completion for at, completion in drawn if at == prompt}
        assert len({ours.reward(completion) for completion in completions}) == len(completions) > 1


def test_the_gap_is_relative_to_the_whole():
    """(0.03, 0.04) apart on a vector of length 5: 0.05 / 5."""
    theirs = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    ours_ = {"a": torch.tensor([3.03]), "b": torch.tensor([4.04])}
    assert gap(ours_, theirs) == pytest.approx(0.01, rel=1e-4)
