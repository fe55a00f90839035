"""A section of params.yaml joined with its algorithm: every key has one reader, or is refused."""

import pytest

from rlpipe.algos import ALGOS
from rlpipe.algos.plan import DistillationPlan, PreferencePlan, RLPlan, plans
from rlpipe.config.schema import Params, Rollout
from rlpipe.errors import ConfigError
from rlpipe.ops.advantages import gae
from rlpipe.ops.aggregate import token_mean
from rlpipe.ops.value import value_squared
from tests.unit.algos.written import ROLLOUT, planned, written


def _refused(algorithm, **changes):
    with pytest.raises(ConfigError) as error:
        planned(algorithm, **changes)
    return str(error.value)


def test_numbers_and_budget_come_apart():
    made = planned("grpo", entropy_coef=0.01, token_budget=1000)
    assert isinstance(made, RLPlan)
    assert made.algo is not None
    assert made.numbers == {"kl_coef": 0.04, "clip_low": 0.2, "clip_high": 0.2, "entropy_coef": 0.01}
    assert (made.budget.steps, made.budget.token_budget, made.budget.reward_norm) == (10, 1000, None)


def test_each_kind_has_its_plan():
    assert isinstance(planned("kto"), PreferencePlan)
    assert isinstance(planned("distillation"), DistillationPlan)


def test_a_composition_of_ones_own():
    made = planned(
        "grpo", advantage="gae", gamma=1.0, lam=0.9, baseline="critic_head", value_loss="value_squared",
        value_coef=0.1, aggregate="token_mean",
    )  # fmt: skip
    assert (made.algo.advantage, made.algo.value_loss, made.algo.aggregate) == (gae, value_squared, token_mean)
    assert made.algo.has_critic
    assert set(made.numbers) == {"kl_coef", "clip_low", "clip_high", "gamma", "lam", "value_coef"}


def test_replay_steps_turn_replay_on():
    assert planned("ppo", replay_steps=3, replay_updates=1).algo.replay
    assert not ALGOS["ppo"].replay


def test_the_adaptive_weight_brings_its_numbers():
    made = planned("ppo", kl_control="proportional", kl_target=5.0, kl_gain=0.1)
    assert {"kl_coef", "kl_target", "kl_gain"} <= set(made.numbers)
    assert _refused("ppo", kl_control="proportional", kl_target=5.0) == (
        "policy.x.kl_gain: missing; 'ppo' reads it. Add the key."
    )


@pytest.mark.parametrize(
    ("algorithm", "changes", "said"),
    [
        ("gprpo", {}, "policy.x.algorithm=gprpo: unknown algorithm. Did you mean 'grpo'?"),
        (
            "reward_model", {}, "policy.x.algorithm=reward_model: that is a stage of its own, with its own section "
            "`reward_model:` of params.yaml. Policies start from models/sft.",
        ),
        ("grpo", {"kl_estimator": "k5"}, "policy.x.kl_estimator=k5: unknown. Did you mean 'k3'?"),
        ("grpo", {"kl_cof": 0.1}, "policy.x.kl_cof: 'grpo' has no such key. Did you mean 'kl_coef'?"),
        ("grpo", {"clip_low": None}, "policy.x.clip_low: missing; 'grpo' reads it. Add the key."),
        ("grpo", {"kl_coef": -0.1}, "policy.x.kl_coef=-0.1: Input should be greater than or equal to 0."),
        ("grpo", {"clip_low": 1.5}, "policy.x.clip_low=1.5: Input should be less than 1."),
        ("grpo", {"entropy_coef": -0.01}, "policy.x.entropy_coef=-0.01: Input should be greater than or equal to 0."),
        ("dpo", {"beta": -1.0}, "policy.x.beta=-1.0: Input should be greater than 0."),
        ("dpo", {"label_smoothing": 0.5}, "policy.x.label_smoothing=0.5: Input should be less than 0.5."),
        ("grpo", {"steps": 0}, "policy.x.steps=0: Input should be greater than or equal to 1."),
        ("grpo", {"reward": {}}, "policy.x.reward: Dictionary should have at least 1 item after validation, not 0."),
        ("dpo", {"prompts_per_step": 4}, "policy.x.prompts_per_step: 'dpo' has no such key. Valid: batch_size, beta, "),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_remedy(algorithm, changes, said):
    assert _refused(algorithm, **changes).startswith(said)


# ---- all sections together ----------------------------------------------------------------------------


def _params(**sections):
    return Params.model_construct(policy=sections, reward_model={}, rollout=Rollout.model_validate(ROLLOUT))


def test_every_section_is_planned():
    assert list(plans(_params(a=written("grpo"), b=written("dpo")))) == ["a", "b"]


def test_a_teacher_must_be_written_by_some_stage():
    student = written("distillation", learns_from="models/grppo")
    with pytest.raises(ConfigError) as error:
        plans(_params(grpo=written("grpo"), student=student))
    assert str(error.value) == (
        "policy.student.learns_from=models/grppo: no stage writes it. Did you mean 'grpo'?"
    )  # fmt: skip
    assert plans(_params(grpo=written("grpo"), student=written("distillation")))


def test_nobody_is_its_own_teacher():
    with pytest.raises(ConfigError, match=r"policy\.grpo\.learns_from=models/grpo: no stage writes it"):
        plans(_params(grpo=written("distillation")))
