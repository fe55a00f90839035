"""Every op may be chosen by its name, and a section's choice takes the place of its algorithm's."""

import pytest

from rlpipe.algos import ALGOS
from rlpipe.algos.choices import ONLINE, choices_of, composed, public_functions
from rlpipe.errors import ConfigError
from rlpipe.ops import advantages, kl, policy, preference
from rlpipe.ops.control import proportional
from rlpipe.ops.distill import forward_kl
from rlpipe.ops.kl import k2


def test_the_names_to_choose_from():
    assert {key: sorted(names) for key, names in ONLINE.items()} == {
        "advantage": [
            "batch_centred", "batch_zscore", "gae", "gae_whitened", "group_centred", "group_centred_batch_zscore",
            "group_zscore", "group_zscore_population", "leave_one_out", "monte_carlo", "n_step_td", "td",
        ],
        "policy_loss": ["dual_clip", "gspo", "ppo_clip", "reinforce", "truncated_is", "truncated_is_sequence"],
        "aggregate": ["constant_length", "prompt_mean", "sequence_mean", "sequence_sum", "token_mean"],
        "baseline": ["critic", "critic_head", "none", "running_mean"],
        "value_loss": ["none", "value_clipped", "value_squared"],
        "kl_estimator": ["exact", "k1", "k2", "k3"],
        "kl_placed": ["hinge", "loss", "none", "reward"],
        "kl_control": ["doubling", "fixed", "proportional", "rising"],
    }  # fmt: skip
    assert sorted(choices_of(ALGOS["dpo"])["pair_loss"]) == [
        "dpo", "dpo_reference_free", "ipo", "ipo_per_token", "kto", "orpo", "simpo",
    ]  # fmt: skip
    assert sorted(choices_of(ALGOS["distillation"])["divergence"]) == [
        "forward_kl", "generalized_jsd", "reverse_kl", "soft_targets",
    ]  # fmt: skip


def test_public_functions_are_those_the_module_itself_defines():
    assert "masked_mean" not in public_functions(advantages)  # imported
    assert "_gae" not in public_functions(advantages)
    assert not any(name.startswith("_") for name in public_functions(advantages))


def test_choices_replace_ops_and_leave_the_rest():
    made = composed(
        ALGOS["grpo"], {"advantage": "leave_one_out", "kl_estimator": "k2", "kl_control": "proportional"}, "x"
    )
    assert made.advantage is advantages.leave_one_out
    assert (made.kl.estimator, made.kl.placed, made.kl.control) == (k2, "loss", proportional)
    assert made.policy_loss is policy.ppo_clip
    assert ALGOS["grpo"].kl.estimator is kl.k3  # the table stays as it was


def test_value_loss_none_is_no_value_loss():
    assert composed(ALGOS["ppo"], {"value_loss": "none", "baseline": "none"}, "x").value_loss is None


def test_offline_choices():
    assert composed(ALGOS["dpo"], {"pair_loss": "ipo"}, "x").pair_loss is preference.ipo
    assert composed(ALGOS["distillation"], {"divergence": "forward_kl"}, "x").divergence is forward_kl


@pytest.mark.parametrize(
    ("algorithm", "key", "name", "hint"),
    [
        ("grpo", "kl_estimator", "k4", " Did you mean 'k3'?"),
        ("grpo", "advantage", "group_zscores", " Did you mean 'group_zscore'?"),
        ("grpo", "kl_placed", "everywhere", " Valid: hinge, loss, none, reward."),
        ("grpo", "kl_control", "adaptive", " Valid: doubling, fixed, proportional, rising."),
        ("dpo", "pair_loss", "dppo", " Did you mean 'dpo'?"),
        ("distillation", "divergence", "kl", " Valid: forward_kl, generalized_jsd, reverse_kl, soft_targets."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(algorithm, key, name, hint):
    with pytest.raises(ConfigError) as error:
        composed(ALGOS[algorithm], {key: name}, "policy.x")
    assert str(error.value).startswith(f"policy.x.{key}={name}: unknown.{hint}")
