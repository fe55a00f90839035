"""Combinations that cannot work: each is refused before anything is loaded, naming key, value, rule and remedy.

The whole message stands here, for it is what a reader gets.
"""

import pytest

from rlpipe.errors import ConfigError
from tests.unit.algos.written import planned

CRITIC = {"baseline": "critic", "value_loss": "value_squared", "value_coef": 0.5}
KL_OFF = "kl_placed is none, so the objective is reference-free and"
PLACE_IT = "Remove the key, or set kl_placed: reward, loss or hinge."

REFUSED = {
    "group estimator with one sample": (
        "grpo", {"group_size": 1},
        "policy.x.group_size=1: 'grpo' (advantage group_zscore) needs at least 2 samples per prompt (it compares each "
        "sample with its siblings). Set 2 or more, or choose an advantage without siblings.",
    ),
    "leave-one-out with one sample": (
        "rloo", {"group_size": 1},
        "policy.x.group_size=1: 'rloo' (advantage leave_one_out) needs at least 2 samples per prompt (it subtracts the "
        "siblings' mean). Set 2 or more, or choose an advantage without siblings.",
    ),
    "resampling with one sample": (
        "ppo", {"group_size": 1, "resample_rounds": 2},
        "policy.x.resample_rounds=2: it draws anew where all samples of a prompt score alike, and group_size is 1. Set "
        "group_size: 2 or more, or remove the key.",
    ),
    "minibatches that do not divide": (
        "grpo", {"minibatches": 3},
        "policy.x.minibatches=3: 16 sequences a step do not divide into that many equal parts. Choose a divisor.",
    ),
    "critic loss without critic": (
        "ppo", {"baseline": "none", "advantage": "batch_zscore", "lam": None},
        "policy.x.value_loss=value_clipped: a critic's loss without a critic (baseline=none). Set baseline: critic or "
        "critic_head, or value_loss: none.",
    ),
    "critic loss with a running mean": (
        "reinforce", {"value_loss": "value_squared", "value_coef": 0.5},
        "policy.x.value_loss=value_squared: a critic's loss without a critic (baseline=running_mean). Set baseline: "
        "critic or critic_head, or value_loss: none.",
    ),
    "weight of a critic loss without critic": (
        "grpo", {"value_coef": 0.5},
        "policy.x.value_coef=0.5: there is no critic (baseline=none), so no value loss. Remove the key, or set "
        "baseline: critic and a value_loss.",
    ),
    "value clip without old values": (
        "grpo", {"value_clip": 0.2},
        "policy.x.value_clip=0.2: without a critic (baseline=none) there are no old values to clip around. Remove the "
        "key, or set baseline: critic and value_loss: value_clipped.",
    ),
    "critic that nothing trains": (
        "ppo", {"value_loss": "none", "value_coef": None, "value_clip": None},
        "policy.x.baseline=critic: a critic that nothing trains. Set value_loss: value_squared or value_clipped.",
    ),
    "critic trained with weight 0": (
        "ppo", {"value_coef": 0.0},
        "policy.x.value_coef=0: a critic that nothing trains (baseline=critic). Set it above 0, or choose an advantage "
        "that reads no values, with baseline: none and value_loss: none.",
    ),
    "bootstrapped advantage without critic": (
        "grpo", {"advantage": "gae", "gamma": 1.0, "lam": 0.9},
        "policy.x.advantage=gae: it reads a critic's values, and baseline is none. Set baseline: critic and a "
        "value_loss, or choose another advantage.",
    ),
    "critic that nothing reads": (
        "grpo", CRITIC,
        "policy.x.baseline=critic: nothing reads it; advantage group_zscore has a baseline of its own. Set baseline: "
        "none, or choose an advantage that reads values, such as gae or monte_carlo.",
    ),
    "warm-up without critic": (
        "grpo", {"critic_warmup_steps": 5},
        "policy.x.critic_warmup_steps=5: there is no critic (baseline=none), so no value loss. Remove the key, or set "
        "baseline: critic and a value_loss.",
    ),
    "warm-up that never ends": (
        "ppo", {"critic_warmup_steps": 10},
        "policy.x.critic_warmup_steps=10: the policy would never learn in 10 steps. Lower it.",
    ),
    "KL weight with a reference-free objective": (
        "dapo", {"kl_coef": 0.1}, f"policy.x.kl_coef=0.1: {KL_OFF} has no KL term. {PLACE_IT}",
    ),
    "KL taken away and its weight left": (
        "grpo", {"kl_placed": "none"}, f"policy.x.kl_coef=0.04: {KL_OFF} has no KL term. {PLACE_IT}",
    ),
    "KL estimator with a reference-free objective": (
        "dapo", {"kl_estimator": "k2"}, f"policy.x.kl_estimator=k2: {KL_OFF} nothing reads it. {PLACE_IT}",
    ),
    "KL control with a reference-free objective": (
        "dapo", {"kl_control": "doubling"}, f"policy.x.kl_control=doubling: {KL_OFF} nothing reads it. {PLACE_IT}",
    ),
    "new references for a reference-free objective": (
        "dapo", {"reference_refresh_steps": 5},
        "policy.x.reference_refresh_steps=5: kl_placed is none, so nothing holds the policy to its reference, and a "
        f"new one would only hide how far it has gone. {PLACE_IT}",
    ),
    "KL threshold without hinge": (
        "grpo", {"kl_threshold": 1.0},
        "policy.x.kl_threshold=1.0: only kl_placed: hinge has a threshold. Remove the key, or set that.",
    ),
    "KL target with a fixed weight": (
        "grpo", {"kl_target": 1.0},
        "policy.x.kl_target=1.0: kl_control is fixed, which does not read it. Remove the key, or set kl_control: "
        "proportional, doubling or rising.",
    ),
    "KL gain of a control that has none": (
        "conservative_ppo", {"kl_control": "doubling", "kl_gain": 0.1},
        "policy.x.kl_gain=0.1: kl_control is doubling, which does not read it. Remove the key, or set kl_control: "
        "proportional.",
    ),
    "adaptive weight that starts at 0": (
        "conservative_ppo", {"kl_control": "doubling", "kl_coef": 0.0},
        "policy.x.kl_coef=0: doubling multiplies the weight, and 0 stays 0. Set a positive start, or kl_control: "
        "fixed.",
    ),
    "KL weight with a reference-free pair loss": (
        "simpo", {"kl_coef": 0.1},
        "policy.x.kl_coef=0.1: 'simpo' is reference-free; there is no KL term to weigh. Remove the key.",
    ),
    "KL weight with a pair loss that has its own": (
        "dpo", {"kl_coef": 0.1},
        "policy.x.kl_coef=0.1: 'dpo' keeps near its reference by its own loss; there is no KL term to weigh. Remove "
        "the key.",
    ),
    "several epochs of an on-policy loss": (
        "rloo", {"epochs": 2},
        "policy.x.epochs=2: 'rloo' (policy_loss reinforce) is right only for samples of the very policy that learns. "
        "Set 1, or choose a loss with a ratio, such as ppo_clip or truncated_is.",
    ),
    "replay with an on-policy loss": (
        "a2c", {"replay_steps": 2, "replay_updates": 1},
        "policy.x.replay_steps=2: 'a2c' (policy_loss reinforce) does not weigh older policies' samples. Remove the "
        "key, or set policy_loss: truncated_is.",
    ),
    "more replays than are kept": (
        "importance_sampling", {"replay_updates": 5},
        "policy.x.replay_updates=5: more than the 4 steps that are kept. Lower it, or raise replay_steps.",
    ),
    "dual clip inside the clip": (
        "ppo", {"policy_loss": "dual_clip", "dual_clip": 1.1},
        "policy.x.dual_clip=1.1: must exceed 1 + clip_high = 1.2, or it cuts what the clip lets through. Raise it.",
    ),
    "a number of another algorithm": (
        "rloo", {"clip_low": 0.2},
        "policy.x.clip_low=0.2: nothing in 'rloo' as composed here reads it; it reads kl_coef. Remove the key.",
    ),
    "a number of another pair loss": (
        "simpo", {"label_smoothing": 0.1},
        "policy.x.label_smoothing=0.1: nothing in 'simpo' as composed here reads it; it reads beta, target_margin. "
        "Remove the key.",
    ),
    "a number where there is none": (
        "on_policy_distillation", {"jsd_beta": 0.5},
        "policy.x.jsd_beta=0.5: nothing in 'on_policy_distillation' as composed here reads it; it has no numbers. "
        "Remove the key.",
    ),
    "a number that a choice made idle": (
        "ppo", {"value_loss": "value_squared"},
        "policy.x.value_clip=0.2: nothing in 'ppo' as composed here reads it; it reads clip_high, clip_low, gamma, "
        "kl_coef, lam, value_coef. Remove the key.",
    ),
    "two learned rewards": (
        "ppo", {"reward": {"reward_model": 1.0, "process_reward_model": 1.0}},
        "policy.x.reward: a section learns from one model; ['reward_model', 'process_reward_model'] are two. Remove "
        "one.",
    ),
    "a learned reward from nowhere": (
        "ppo", {"reward": {"reward_model": 1.0}},
        "policy.x.learns_from=data/prepared: its reward names reward_model. Set models/reward_model/NAME.",
    ),
    "an input that nothing reads": (
        "grpo", {"learns_from": "models/reward_model/gold"},
        "policy.x.learns_from=models/reward_model/gold: its reward names no learned model, so nothing else is read. "
        "Set data/prepared.",
    ),
    "pairs from elsewhere": (
        "dpo", {"learns_from": "data/prepared"},
        "policy.x.learns_from=data/prepared: 'dpo' learns from pairs. Set data/pairs/NAME.",
    ),
    **{
        f"a teacher that is {source}": (
            "distillation", {"learns_from": source},
            f"policy.x.learns_from={source}: 'distillation' learns from a teacher, a causal language model other than "
            "models/sft, where the student starts. Set models/NAME of another policy, or a folder.",
        )
        for source in ("data/pairs/gold", "models/sft", "models/reward_model/gold", "models/process_reward_model",
                       "models/judge")
    },
}  # fmt: skip


@pytest.mark.parametrize(("algorithm", "changes", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(algorithm, changes, said):
    with pytest.raises(ConfigError) as error:
        planned(algorithm, **changes)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("algorithm", "changes", "called"),
    [
        ("importance_sampling", {}, "'importance_sampling' (policy_loss truncated_is)"),
        ("cispo", {}, "'cispo' (policy_loss truncated_is)"),
        ("grpo", {"policy_loss": "truncated_is_sequence", "is_cap": 2.0, "clip_low": None, "clip_high": None},
         "'grpo' (policy_loss truncated_is_sequence)"),
        ("ppo", {"replay_steps": 2, "replay_updates": 1}, "'ppo' (policy_loss ppo_clip)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.1}])
def test_importance_weights_of_truncated_samples_are_refused(algorithm, changes, called, cut):
    ((key, value),) = cut.items()
    with pytest.raises(ConfigError) as error:
        planned(algorithm, rollout=cut, **changes)
    assert str(error.value) == (
        f"policy.x: rollout.{key}={value} draws from a part of the distribution, and {called} divides by the "
        f"probability of the draw in the whole. Set rollout.{key}: null."
    )
    planned(algorithm, **changes)  # of whole samples it is fine


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("grpo", {"group_size": 2}),
        ("reinforce", {"group_size": 1}),
        ("ppo", {"critic_warmup_steps": 9}),
        ("ppo", {"baseline": "critic_head"}),
        ("ppo", {"policy_loss": "dual_clip", "dual_clip": 3.0}),
        ("reinforce", {"baseline": "none", "baseline_decay": None}),
        ("reinforce", {**CRITIC, "baseline_decay": None}),
        ("dapo", {"kl_placed": "loss", "kl_coef": 0.1, "kl_estimator": "k2", "reference_refresh_steps": 5}),
        ("grpo", {"kl_placed": "none", "kl_coef": None}),
        ("ppo", {"epochs": 4, "minibatches": 2}),
        ("importance_sampling", {"replay_updates": 4}),
        ("ppo", {"reward": {"reward_model": 0.5, "math_answer": 0.5}, "learns_from": "models/reward_model/gold"}),
        ("distillation", {"learns_from": "/models/teacher"}),
        ("dpo", {"pair_loss": "simpo", "label_smoothing": None, "target_margin": 1.0}),
    ],
)
def test_their_lawful_neighbours_pass(algorithm, changes):
    planned(algorithm, **changes)


@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.1}])
def test_a_loss_that_weighs_nothing_may_learn_from_truncated_samples(cut):
    planned("rloo", rollout=cut)
