"""The same numbers as TRL 1.16 wherever it has the same loss, to 1e-6 in value and gradient.

TRL's losses are written inside its trainers' methods. They are called here unbound, on a stand-in for `self` that holds
what the method reads. What is compared in float64 agrees to far better; 1e-6 is what is asked.

Where we differ on purpose, the test says so and shows by how much.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.gkd.gkd_trainer import GKDTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer import utils
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from rlpipe.ops.advantages import group_centred, group_zscore, leave_one_out
from rlpipe.ops.aggregate import constant_length, sequence_mean, token_mean
from rlpipe.ops.distill import forward_kl, generalized_jsd, reverse_kl
from rlpipe.ops.kl import k3
from rlpipe.ops.logprobs import entropy, selective_log_softmax
from rlpipe.ops.policy import dual_clip, gspo, ppo_clip, reinforce, truncated_is
from rlpipe.ops.preference import bradley_terry, dpo, dpo_reference_free, ipo, ipo_per_token, kto, orpo, simpo
from rlpipe.ops.rewards import terminal
from rlpipe.types import PairLogps

TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}

# Responses stand at the left, as in TRL, which multiplies by its mask: no NaN under it here.
LENGTHS = torch.tensor([4, 2, 5, 1, 3, 5])
MASK = torch.arange(5) < LENGTHS.unsqueeze(1)
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])
MAX_TOKENS = 9
LOW, HIGH = 0.2, 0.28


def _draw(seed: int, low: float, high: float, *shape: int) -> torch.Tensor:
    uniform = torch.rand(shape or MASK.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * uniform


LOGP, OLD, REF = _draw(0, -2, -0.5), _draw(1, -2, -0.5), _draw(2, -2, -0.5)
ADV = _draw(3, -2, 2, 6)
ADV_BT = ADV.unsqueeze(1) * MASK


def _accelerator() -> SimpleNamespace:
    """One process: gathering and reducing change nothing."""
    return SimpleNamespace(
        device=torch.device("cpu"), num_processes=1, process_index=0, gather=lambda x: x,
        gather_for_metrics=lambda x: x, reduce=lambda x, **_: x,
    )  # fmt: skip


def _metrics() -> dict:
    return {"train": defaultdict(list), "eval": defaultdict(list)}


def _same(ours, theirs, *leaves) -> None:
    """Equal values and, for each pair of leaves, equal gradients."""
    assert_close(ours.to(theirs.dtype), theirs, **TOLERANCE)
    ours.backward()
    theirs.backward()
    for our_leaf, their_leaf in leaves:
        assert their_leaf.grad.abs().sum() > 0
        assert_close(our_leaf.grad, their_leaf.grad, **TOLERANCE)


def _leaves(values: torch.Tensor = LOGP) -> tuple[torch.Tensor, torch.Tensor]:
    return values.clone().requires_grad_(), values.clone().requires_grad_()


# ---- online: losses -----------------------------------------------------------------------------------


def _trl_grpo(logp, loss_type, beta=0.0, level="token", delta=None, low=LOW, high=HIGH):
    """TRL's GRPO loss of one optimizer step made in one piece."""
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        _entropy_bonus_enabled=False, _metrics=_metrics(), accelerator=_accelerator(), aux_loss_enabled=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=delta, steps_per_generation=1), beta=beta,
        current_gradient_accumulation_steps=1, epsilon_high=high, epsilon_low=low, importance_sampling_level=level,
        loss_type=loss_type, max_completion_length=MAX_TOKENS, model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None, top_entropy_quantile=1.0, use_vllm=False,
    )  # fmt: skip
    prompt = torch.ones(6, 2, dtype=torch.int64)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": MASK.long(), "completion_mask": MASK.long(),
        "advantages": ADV, "old_per_token_logps": OLD, "ref_per_token_logps": REF, "num_items_in_batch": MASK.sum(),
    }  # fmt: skip
    return GRPOTrainer._compute_loss(stub, None, inputs), stub._metrics["train"]


def _ours(aggregate, logp, op, beta=0.0, **numbers):
    token = op(logp, OLD, ADV_BT, MASK, **numbers)
    weight = aggregate(MASK, GROUPS, MAX_TOKENS).double()
    return (weight * (token.loss_BT + beta * k3(logp, REF))).sum(), token


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
    ("loss_type", "aggregate"),
    [("grpo", sequence_mean), ("bnpo", token_mean), ("dr_grpo", constant_length), ("dapo", token_mean)],
)
def test_clipped_losses_and_their_aggregations(loss_type, aggregate, beta):
    # bnpo averages over a micro-batch's tokens and dapo over the step's: the same in a step made in one piece. We
    # always take the step's, so that a split into micro-batches cannot change it; TRL's bnpo does change.
    a, b = _leaves()
    ours, token = _ours(aggregate, a, ppo_clip, beta, clip_low=LOW, clip_high=HIGH)
    theirs, metrics = _trl_grpo(b, loss_type, beta)
    _same(ours, theirs, (a, b))
    for our_name, their_name in (("low", "clip_ratio/low_mean"), ("high", "clip_ratio/high_mean")):
        share = token.metrics_BT[f"policy/clip_frac_{our_name}"][MASK].mean().item()
        assert 0 < share == pytest.approx(metrics[their_name][0])


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_gspo(beta):
    a, b = _leaves()
    ours, _ = _ours(sequence_mean, a, gspo, beta, clip_low=0.05, clip_high=0.08)
    _same(ours, _trl_grpo(b, "grpo", beta, level="sequence", low=0.05, high=0.08)[0], (a, b))


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_cispo(beta):
    # TRL's epsilon_high is the cap itself, as our is_cap.
    a, b = _leaves()
    ours, _ = _ours(token_mean, a, truncated_is, beta, is_cap=1.3)
    _same(ours, _trl_grpo(b, "cispo", beta, high=1.3)[0], (a, b))


def test_dual_clip_is_two_sided_clipping():
    # TRL caps the unclipped ratio at delta for either sign of A. For A < 0 that is our bound, min(l_clip, -delta A).
    # For A > 0 it says nothing where delta > 1 + epsilon_high, for the clip holds first: one loss on all ratios.
    # With delta below 1 + epsilon_high the two would differ; `algos.refusals` does not let that pass.
    a, b = _leaves()
    ours, token = _ours(sequence_mean, a, dual_clip, clip_low=LOW, clip_high=HIGH, dual_clip=1.5)
    assert token.metrics_BT["policy/dual_clip_frac"].sum() > 0
    _same(ours, _trl_grpo(b, "grpo", delta=1.5)[0], (a, b))


def _trl_rloo(logp):
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        _metrics=_metrics(), accelerator=_accelerator(), aux_loss_enabled=False, epsilon_high=HIGH, epsilon_low=LOW,
        model=SimpleNamespace(training=True),
    )  # fmt: skip
    prompt = torch.ones(6, 2, dtype=torch.int64)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": MASK.long(), "completion_mask": MASK.long(),
        "advantages": ADV, "old_logps": (LOGP * MASK).sum(1),
    }  # fmt: skip
    return RLOOTrainer._compute_loss(stub, None, inputs)


def test_rloo_has_the_same_gradient_on_its_own_samples():
    # We differ on purpose: TRL clips the ratio of whole responses, so that it may take several updates of one sample;
    # the paper's loss is -A log pi, right for one update. At that first update the ratio is 1 and the gradients of
    # -r A and of -A log pi are equal; the values are not, for the latter is no ratio.
    a, b = _leaves()
    token = reinforce(a, LOGP, ADV_BT, MASK)
    (token.loss_BT.sum(1).mean()).backward()
    _trl_rloo(b).backward()
    assert_close(a.grad, b.grad, **TOLERANCE)


# ---- online: advantages -------------------------------------------------------------------------------


def _trl_advantages(trainer, rewards, **settings):
    """TRL's advantages: its statements from the rewards on, run out of the middle of the method that samples."""
    body = ast.parse(textwrap.dedent(inspect.getsource(trainer._generate_and_score_completions))).body[0].body
    assigned = [ast.unparse(s.targets[0]) if isinstance(s, ast.Assign) else "" for s in body]
    first = assigned.index("rewards_per_func")
    last = len(assigned) - 1 - assigned[::-1].index("advantages", assigned[::-1].index("process_slice"))
    code = compile(ast.Module(body[first : last + 1], type_ignores=[]), "<trl>", "exec")
    stub = SimpleNamespace(
        _calculate_rewards=lambda *_: rewards.unsqueeze(1), num_generations=3, reward_clip_range=None, beta=0.0,
        reward_weights=torch.ones(1, dtype=torch.float64), multi_objective_aggregation="sum_then_normalize", **settings,
    )  # fmt: skip
    names = {
        "self": stub, "mode": "train", "device": torch.device("cpu"), "inputs": None, "prompts": None,
        "completions": None, "completion_ids_list": None,
    }  # fmt: skip
    exec(code, vars(inspect.getmodule(trainer)), names)
    return names["advantages"]


REWARDS = _draw(4, 0, 1, 6)


def _our_advantage(op, rewards=REWARDS):
    reward_BT = terminal(rewards, MASK)
    return op(reward_BT, torch.zeros_like(reward_BT), GROUPS, MASK).adv_BT[:, 0]  # every first token is real


def test_group_advantage():
    assert_close(_our_advantage(group_zscore), _trl_advantages(GRPOTrainer, REWARDS, scale_rewards="group"))


def test_group_advantage_without_scale():
    assert_close(_our_advantage(group_centred), _trl_advantages(GRPOTrainer, REWARDS, scale_rewards="none"))


def test_group_advantage_scaled_over_the_batch():
    # We have no such op on purpose: our scale over the batch is REINFORCE++'s, which whitens tokens rather than
    # responses. TRL's is the centred advantage over the standard deviation of all scores, mean of groups left in.
    theirs = _trl_advantages(GRPOTrainer, REWARDS, scale_rewards="batch")
    assert_close(_our_advantage(group_centred) / (REWARDS.std() + 1e-4), theirs)


def test_leave_one_out_advantage():
    assert_close(_our_advantage(leave_one_out), _trl_advantages(RLOOTrainer, REWARDS, normalize_advantages=False))


# ---- pairs --------------------------------------------------------------------------------------------

CHOSEN_LENGTHS, REJECTED_LENGTHS = LENGTHS[:3], LENGTHS[3:]


def _pair_logps(logp, ref=REF, z=0.0):
    """The first three rows chosen, the others rejected, as TRL stacks them."""
    policy, reference = (logp * MASK).sum(1), (ref * MASK).sum(1)
    return PairLogps(
        policy[:3], policy[3:], reference[:3], reference[3:], CHOSEN_LENGTHS.double(), REJECTED_LENGTHS.double(),
        torch.tensor(z, dtype=torch.float64),
    )  # fmt: skip


def _outputs(logp):
    """What TRL's models return: log-probs that are 0 where the label is ignored, and what it only logs."""
    zero = torch.zeros_like(logp)
    return SimpleNamespace(log_probs=logp * MASK, entropy=zero, mean_logits=zero, is_top1=zero.bool())


# One prompt token before each response, which TRL's shift of labels takes off.
WITH_PROMPT = torch.cat([torch.zeros(6, 1, dtype=torch.int64), MASK.long()], 1)


def _trl_dpo(logp, loss_type, beta, label_smoothing=0.0):
    stub = SimpleNamespace(
        _metrics=_metrics(), _total_train_tokens=0, _tp_size=1, accelerator=_accelerator(), args=None,
        aux_loss_enabled=False, beta=beta, f_divergence_type="reverse_kl", label_smoothing=label_smoothing,
        ld_alpha=None, loss_types=[loss_type], loss_weights=[1.0], model=SimpleNamespace(training=True),
        precompute_ref_logps=True, use_weighting=False,
    )  # fmt: skip
    reference = (REF * MASK).sum(1)
    inputs = {
        "input_ids": WITH_PROMPT, "attention_mask": torch.ones_like(WITH_PROMPT), "completion_mask": WITH_PROMPT,
        "ref_chosen_logps": reference[:3], "ref_rejected_logps": reference[3:],
    }  # fmt: skip
    loss = DPOTrainer._compute_loss(stub, lambda **_: _outputs(logp), inputs, return_outputs=False)
    return loss, {name: values[0] for name, values in stub._metrics["train"].items() if isinstance(values, list)}


def test_dpo():
    a, b = _leaves()
    ours = dpo(_pair_logps(a), beta=0.3, label_smoothing=0.0)
    theirs, metrics = _trl_dpo(b, "sigmoid", 0.3)
    _same(ours.loss_B.mean(), theirs, (a, b))
    for our_name, their_name in (
        ("chosen_reward", "rewards/chosen"),
        ("rejected_reward", "rewards/rejected"),
        ("margin", "rewards/margins"),
        ("accuracy", "rewards/accuracies"),
    ):
        assert ours.metrics_B[f"preference/{our_name}"].mean().item() == pytest.approx(metrics[their_name])


def test_label_smoothing():
    # TRL 1.16 has dropped cDPO's smoothing from its sigmoid loss: there it changes nothing. What it has under "robust"
    # is another loss of the same two terms, their difference over 1 - 2 s, unbiased for flipped labels
    # (arXiv:2403.00409); cDPO takes their sum. With c, f the losses of a pair kept and flipped:
    #   robust = ((1 - s) c - s f) / (1 - 2 s),   cDPO = (1 - s) c + s f
    assert_close(_trl_dpo(LOGP, "sigmoid", 0.3, 0.1)[0], _trl_dpo(LOGP, "sigmoid", 0.3)[0])
    pairs = _pair_logps(LOGP)
    flipped = PairLogps(
        pairs.rejected_B, pairs.chosen_B, pairs.rejected_ref_B, pairs.chosen_ref_B, pairs.rejected_length_B,
        pairs.chosen_length_B, pairs.kl_baseline,
    )  # fmt: skip
    kept, turned = (dpo(p, beta=0.3, label_smoothing=0.0).loss_B for p in (pairs, flipped))
    assert_close(((0.9 * kept - 0.1 * turned) / 0.8).mean(), _trl_dpo(LOGP, "robust", 0.3, 0.1)[0], **TOLERANCE)
    assert_close(0.9 * kept + 0.1 * turned, dpo(pairs, beta=0.3, label_smoothing=0.1).loss_B, **TOLERANCE)


def test_dpo_without_reference():
    # TRL's DPO has no such mode any more; its CPO is the same loss, and there the smoothing is cDPO's sum.
    a, b = _leaves()
    ours = dpo_reference_free(_pair_logps(a), beta=0.3, label_smoothing=0.1)
    total = (b * MASK).sum(1)
    theirs, chosen, rejected = _cpo("sigmoid", beta=0.3, label_smoothing=0.1)(total[:3], total[3:])
    _same(ours.loss_B.mean(), theirs.mean(), (a, b))
    assert_close(ours.metrics_B["preference/chosen_reward"], chosen, **TOLERANCE)
    assert_close(ours.metrics_B["preference/rejected_reward"], rejected, **TOLERANCE)


def test_ipo():
    a, b = _leaves()
    _same(ipo_per_token(_pair_logps(a), tau=0.7).loss_B.mean(), _trl_dpo(b, "ipo", 0.7)[0], (a, b))


def test_ipo_of_the_paper_sums_and_trls_averages():
    # On responses of one token sum and average are one; on longer ones `ipo` keeps to the paper's eq. 17.
    pairs = _pair_logps(LOGP)
    one = torch.ones(3, dtype=torch.float64)
    of_one = PairLogps(
        pairs.chosen_B, pairs.rejected_B, pairs.chosen_ref_B, pairs.rejected_ref_B, one, one, pairs.kl_baseline
    )
    assert_close(ipo(pairs, tau=0.7).loss_B, ipo_per_token(of_one, tau=0.7).loss_B)
    assert (ipo(pairs, tau=0.7).loss_B - ipo_per_token(pairs, tau=0.7).loss_B).abs().min() > 0.01


def _trl_kto(logp, z, desirable, undesirable):
    """TRL's KTO loss; its policy's and reference's log-probs of unrelated responses differ by z."""
    unrelated = torch.full((6,), -4.0, dtype=torch.float64)
    stub = SimpleNamespace(
        _compute_kl_logps=lambda *_: unrelated + z, _metrics=_metrics(), _total_train_tokens=0, _tp_size=1,
        accelerator=_accelerator(), aux_loss_enabled=False, beta=0.3, calculate_KL=True, desirable_weight=desirable,
        undesirable_weight=undesirable, loss_type="kto", model=SimpleNamespace(training=True),
        precompute_ref_logps=True,
    )  # fmt: skip
    inputs = {
        "input_ids": WITH_PROMPT, "attention_mask": torch.ones_like(WITH_PROMPT), "completion_mask": WITH_PROMPT,
        "label": torch.tensor([True] * 3 + [False] * 3), "ref_logps": (REF * MASK).sum(1), "ref_KL_logps": unrelated,
    }  # fmt: skip
    return KTOTrainer._compute_loss(stub, lambda **_: _outputs(logp), inputs, return_outputs=False)


@pytest.mark.parametrize("z", [0.0, 0.8])
def test_kto(z):
    a, b = _leaves()
    ours = kto(_pair_logps(a, z=z), beta=0.3, desirable_weight=1.2, undesirable_weight=0.8).loss_B.mean()
    _same(ours, _trl_kto(b, z, 1.2, 0.8), (a, b))


def test_kto_takes_no_negative_baseline():
    # TRL clamps the measured baseline at 0, as the paper does; we ask for one that is already clamped.
    assert_close(_trl_kto(LOGP, -0.8, 1.0, 1.0), _trl_kto(LOGP, 0.0, 1.0, 1.0))


def test_orpo():
    # TRL computes the odds in float32, so these agree to its precision. Its method returns lambda log sigmoid(odds),
    # which its caller takes from the likelihood of the chosen response.
    stub = SimpleNamespace(accelerator=_accelerator(), beta=0.3)
    a, b = _leaves()

    def their_loss(logp):
        mean = (logp * MASK).sum(1) / LENGTHS
        ratio, chosen, rejected, _, _ = ORPOTrainer.odds_ratio_loss(stub, mean[:3], mean[3:])
        return (-mean[:3] - ratio).mean(), chosen, rejected

    ours = orpo(_pair_logps(a), odds_weight=0.3)
    theirs, chosen, rejected = their_loss(b)
    _same(ours.loss_B.mean(), theirs, (a, b))
    assert_close(ours.metrics_B["preference/chosen_reward"].float(), chosen, **TOLERANCE)
    assert_close(ours.metrics_B["preference/rejected_reward"].float(), rejected, **TOLERANCE)


def _cpo(loss_type, **settings):
    defaults = {"alpha": 0.0, "simpo_gamma": 0.0, "label_smoothing": 0.0}
    stub = SimpleNamespace(accelerator=_accelerator(), loss_type=loss_type, **{**defaults, **settings})
    return lambda chosen, rejected: CPOTrainer.cpo_loss(stub, chosen, rejected)


def test_simpo():
    a, b = _leaves()
    ours = simpo(_pair_logps(a), beta=2.0, target_margin=0.5)
    mean = (b * MASK).sum(1) / LENGTHS
    theirs, chosen, rejected = _cpo("simpo", beta=2.0, simpo_gamma=0.5)(mean[:3], mean[3:])
    _same(ours.loss_B.mean(), theirs.mean(), (a, b))
    assert_close(ours.metrics_B["preference/chosen_reward"], chosen, **TOLERANCE)
    assert_close(ours.metrics_B["preference/rejected_reward"], rejected, **TOLERANCE)


@pytest.mark.parametrize("centring", [None, 0.01])
@pytest.mark.parametrize("margin", [None, 0.5])
def test_reward_model(margin, centring):
    # Ours has two more numbers, which TRL's loss has at 1: the temperature, and the margin's weight.
    scores = _draw(5, -2, 2, 6)
    a, b = _leaves(scores)
    margins = torch.full((3,), margin or 0.0, dtype=torch.float64)
    ours = bradley_terry(a[:3], a[3:], margins, temperature=1.0, margin_coef=1.0, centring_coef=centring or 0.0)
    stub = SimpleNamespace(
        _metrics=_metrics(), _total_train_tokens=0, _tp_size=1, accelerator=_accelerator(),
        args=SimpleNamespace(center_rewards_coefficient=centring), model=SimpleNamespace(training=True),
    )  # fmt: skip
    inputs = {"attention_mask": torch.ones(6, 2)} | ({} if margin is None else {"margin": margins})
    theirs = RewardTrainer.compute_loss(stub, lambda **_: SimpleNamespace(logits=b.unsqueeze(1)), inputs)
    _same(ours.loss_B.mean(), theirs, (a, b))
    metrics = stub._metrics["train"]
    assert ours.metrics_B["reward_model/accuracy"].mean().item() == pytest.approx(metrics["accuracy"][0])
    assert ours.metrics_B["reward_model/margin"].mean().item() == pytest.approx(metrics["margin"][0])


# ---- distributions ------------------------------------------------------------------------------------

LOGITS, TEACHER = _draw(6, -4, 4, 6, 5, 7), _draw(7, -4, 4, 6, 5, 7)
IDS = torch.randint(7, MASK.shape, generator=torch.Generator().manual_seed(8))
LABELS = torch.where(MASK, IDS, -100)


@pytest.mark.parametrize(
    ("op", "beta", "numbers"),
    [
        (forward_kl, 0.0, {}),
        (generalized_jsd, 0.3, {"jsd_beta": 0.3}),
        (generalized_jsd, 0.5, {"jsd_beta": 0.5}),
        (reverse_kl, 1.0, {}),
    ],
)
def test_generalized_jsd(op, beta, numbers):
    # TRL sets 0 and 1 apart as the two KLs; we give those their names. The limits are in test_ops_distill.
    a, b = _leaves(LOGITS)
    ours = op(a, TEACHER, IDS, MASK, **numbers).sum() / MASK.sum()
    _same(ours, GKDTrainer.generalized_jsd_loss(b, TEACHER, labels=LABELS, beta=beta), (a, b))


def test_selective_log_softmax():
    a, b = _leaves(LOGITS)
    _same(selective_log_softmax(a, IDS).sum(), utils.selective_log_softmax(b, IDS).sum(), (a, b))
    assert_close(selective_log_softmax(LOGITS, IDS), utils.selective_log_softmax(LOGITS, IDS), **TOLERANCE)


def test_selective_log_softmax_of_bfloat16():
    # We differ on purpose: TRL stays in bfloat16, so its log-probs are off in the last of 8 bits; ours are float32.
    half = LOGITS.bfloat16()
    ours, theirs = selective_log_softmax(half, IDS), utils.selective_log_softmax(half, IDS)
    assert (ours.dtype, theirs.dtype) == (torch.float32, torch.bfloat16)
    assert_close(ours, utils.selective_log_softmax(half.float(), IDS), **TOLERANCE)
    assert_close(ours, theirs.float(), rtol=2**-6, atol=0)


def test_entropy():
    a, b = _leaves(LOGITS)
    _same(entropy(a).sum(), utils.entropy_from_logits(b).sum(), (a, b))
    assert entropy(torch.zeros(1, 1, 7)).item() == pytest.approx(math.log(7))
