"""Combinations that cannot work, each with its reason and its remedy. Nothing here loads anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlpipe.algos.base import DistillationAlgo, PolicyAlgo, PreferenceAlgo, SectionAlgo, StageAlgo
from rlpipe.config.schema import Numbers, Policy, RLBudget, Rollout
from rlpipe.errors import ConfigError
from rlpipe.ops.needs import needs_of

# Rewards that a stage learns, and where it writes them.
_LEARNED = {
    "reward_model": "models/reward_model/NAME",
    "process_reward_model": "models/process_reward_model",
    "judge": "models/judge",
}
_DEMONSTRATIONS = ("data/constitution", "data/prepared")
_NO_TEACHERS = ("models/sft", "models/reward_model", "models/process_reward_model", "models/judge")


def foreign(at: str, value: Any, key: str, algo: SectionAlgo) -> str:
    """Why a number that exists has no place in this composition; empty if nobody knows it."""
    if key == "kl_coef" and isinstance(algo, PreferenceAlgo):
        why = "keeps near its reference by its own loss" if needs_of(algo.pair_loss).reference else "is reference-free"
        return f"{at}={value}: {algo.name!r} {why}; there is no KL term to weigh. Remove the key."
    if isinstance(algo, PolicyAlgo) and (why := _foreign_online(at, value, key, algo)):
        return why
    if key not in Numbers.model_fields:
        return ""
    read = f"it reads {', '.join(sorted(algo.numbers))}" if algo.numbers else "it has no numbers"
    return f"{at}={value}: nothing in {algo.name!r} as composed here reads it; {read}. Remove the key."


def _foreign_online(at: str, value: Any, key: str, algo: PolicyAlgo) -> str:
    if key in ("kl_coef", "kl_threshold", "kl_target", "kl_gain") and algo.kl.placed == "none":
        return (
            f"{at}={value}: kl_placed is none, so the objective is reference-free and has no KL term. Remove the "
            "key, or set kl_placed: reward, loss or hinge."
        )
    if key == "kl_threshold":
        return f"{at}={value}: only kl_placed: hinge has a threshold. Remove the key, or set that."
    if key in ("kl_target", "kl_gain"):
        return (
            f"{at}={value}: kl_control is {algo.kl.control.__name__}, which does not read it. Remove the key, or set "
            f"kl_control: {'proportional' if key == 'kl_gain' else 'proportional, doubling or rising'}."
        )
    if key == "value_clip" and not algo.has_critic:
        return (
            f"{at}={value}: without a critic (baseline={algo.baseline}) there are no old values to clip around. "
            "Remove the key, or set baseline: critic and value_loss: value_clipped."
        )
    if key in ("value_coef", "critic_warmup_steps") and not algo.has_critic:
        return (
            f"{at}={value}: there is no critic (baseline={algo.baseline}), so no value loss. Remove the key, or set "
            "baseline: critic and a value_loss."
        )
    return ""


def refuse_offline(at: str, section: Policy, algo: PreferenceAlgo | DistillationAlgo) -> None:
    """Raises: ConfigError unless the section learns from what its algorithm needs."""
    if isinstance(algo, PreferenceAlgo):
        _require_source(at, section, "data/pairs/NAME", f"{algo.name!r} learns from pairs")
    elif section.learns_from.startswith(("data/", *_NO_TEACHERS)):
        raise ConfigError(
            f"{at}.learns_from={section.learns_from}: {algo.name!r} learns from a teacher, a causal language model "
            "other than models/sft, where the student starts. Set models/NAME of another policy, or a folder."
        )


def refuse_distillation(at: str, algo: DistillationAlgo, rollout: Rollout) -> None:
    """Raises: ConfigError where student and teacher would sample from one server."""
    if algo.samples_of == "teacher" and rollout.engine == "vllm_server":
        raise ConfigError(
            f"{at}: {algo.name!r} draws from the teacher and is measured by the student's own samples, and a server "
            "has one set of weights. Set rollout.engine: vllm or transformers."
        )


def refuse_supervised(at: str, section: Policy, algo: StageAlgo) -> None:
    """Raises: ConfigError unless the section learns from demonstrations."""
    if section.learns_from not in _DEMONSTRATIONS:
        raise ConfigError(
            f"{at}.learns_from={section.learns_from}: {algo.name!r} learns from demonstrations, and none are there. "
            f"Set {' or '.join(_DEMONSTRATIONS)}."
        )


def refuse_online(
    at: str, section: Policy, algo: PolicyAlgo, budget: RLBudget, numbers: Mapping[str, float], rollout: Rollout
) -> None:
    """Raises: ConfigError on the first rule that is broken."""
    _group(at, algo, budget)
    _critic(at, algo, budget, numbers)
    _penalty(at, section, algo, budget, numbers)
    _age_of_samples(at, algo, budget, numbers, rollout)
    if "dual_clip" in numbers and numbers["dual_clip"] <= 1 + numbers["clip_high"]:
        raise ConfigError(
            f"{at}.dual_clip={numbers['dual_clip']}: must exceed 1 + clip_high = {1 + numbers['clip_high']:g}, or it "
            "cuts what the clip lets through. Raise it."
        )
    learned = [name for name in _LEARNED if name in budget.reward]
    if len(learned) > 1:
        raise ConfigError(f"{at}.reward: a section learns from one model; {learned} are two. Remove one.")
    _per_step(at, budget)
    for name in learned:
        _require_source(at, section, _LEARNED[name], f"its reward names {name}")
    if not learned:
        _require_source(at, section, "data/prepared", "its reward names no learned model, so nothing else is read")


def _per_step(at: str, budget: RLBudget) -> None:
    """A process reward model scores steps, not responses: there is nothing to gate, normalise or clip."""
    part = budget.reward.get("process_reward_model")
    if part is not None and (extra := sorted(part.model_fields_set - {"weight"})):
        raise ConfigError(
            f"{at}.reward.process_reward_model.{extra[0]}: it rewards each step, so only its weight has a meaning. "
            "Remove the key."
        )
    behind = [name for name, other in budget.reward.items() if other.gate == "process_reward_model"]
    if behind:
        raise ConfigError(
            f"{at}.reward.{behind[0]}.gate=process_reward_model: it has no score of the whole response to hold "
            "anything by. Choose another gate."
        )


def _group(at: str, algo: PolicyAlgo, budget: RLBudget) -> None:
    needed = needs_of(algo.advantage)
    if budget.group_size < needed.group:
        raise ConfigError(
            f"{at}.group_size={budget.group_size}: {_called(algo, 'advantage')} needs at least {needed.group} samples "
            f"per prompt ({needed.because}). Set {needed.group} or more, or choose an advantage without siblings."
        )
    if budget.resample_rounds is not None and budget.group_size < 2:
        raise ConfigError(
            f"{at}.resample_rounds={budget.resample_rounds}: it draws anew where all samples of a prompt score alike, "
            f"and group_size is {budget.group_size}. Set group_size: 2 or more, or remove the key."
        )
    sequences = budget.prompts_per_step * budget.group_size
    if sequences % budget.minibatches:
        raise ConfigError(
            f"{at}.minibatches={budget.minibatches}: {sequences} sequences a step do not divide into that many equal "
            "parts. Choose a divisor."
        )


def _critic(at: str, algo: PolicyAlgo, budget: RLBudget, numbers: Mapping[str, float]) -> None:
    reads = needs_of(algo.advantage).values
    if algo.value_loss is not None and not algo.has_critic:
        raise ConfigError(
            f"{at}.value_loss={algo.value_loss.__name__}: a critic's loss without a critic (baseline="
            f"{algo.baseline}). Set baseline: critic or critic_head, or value_loss: none."
        )
    if algo.has_critic and algo.value_loss is None:
        raise ConfigError(
            f"{at}.baseline={algo.baseline}: a critic that nothing trains. Set value_loss: value_squared or "
            "value_clipped."
        )
    if algo.has_critic and numbers["value_coef"] == 0:
        raise ConfigError(
            f"{at}.value_coef=0: a critic that nothing trains (baseline={algo.baseline}). Set it above 0, or choose an "
            "advantage that reads no values, with baseline: none and value_loss: none."
        )
    if reads == "needed" and not algo.has_critic:
        raise ConfigError(
            f"{at}.advantage={algo.advantage.__name__}: it reads a critic's values, and baseline is {algo.baseline}. "
            "Set baseline: critic and a value_loss, or choose another advantage."
        )
    if reads == "unread" and algo.baseline != "none":
        raise ConfigError(
            f"{at}.baseline={algo.baseline}: nothing reads it; advantage {algo.advantage.__name__} has a baseline of "
            "its own. Set baseline: none, or choose an advantage that reads values, such as gae or monte_carlo."
        )
    if budget.critic_warmup_steps is not None and not algo.has_critic:
        raise ConfigError(foreign(f"{at}.critic_warmup_steps", budget.critic_warmup_steps, "critic_warmup_steps", algo))
    if budget.critic_warmup_steps is not None and budget.critic_warmup_steps >= budget.steps:
        raise ConfigError(
            f"{at}.critic_warmup_steps={budget.critic_warmup_steps}: the policy would never learn in {budget.steps} "
            "steps. Lower it."
        )


def _penalty(at: str, section: Policy, algo: PolicyAlgo, budget: RLBudget, numbers: Mapping[str, float]) -> None:
    unread = [key for key in ("kl_estimator", "kl_control") if key in section.settings]
    if algo.kl.placed == "none" and unread:
        raise ConfigError(
            f"{at}.{unread[0]}={section.settings[unread[0]]}: kl_placed is none, so the objective is reference-free "
            "and nothing reads it. Remove the key, or set kl_placed: reward, loss or hinge."
        )
    if algo.kl.placed == "none" and budget.reference_refresh_steps is not None:
        raise ConfigError(
            f"{at}.reference_refresh_steps={budget.reference_refresh_steps}: kl_placed is none, so nothing holds the "
            "policy to its reference, and a new one would only hide how far it has gone. Remove the key, or set "
            "kl_placed: reward, loss or hinge."
        )
    adaptive = algo.kl.control.__name__
    if adaptive != "fixed" and numbers.get("kl_coef") == 0:
        raise ConfigError(
            f"{at}.kl_coef=0: {adaptive} multiplies the weight, and 0 stays 0. Set a positive start, or kl_control: "
            "fixed."
        )


def _age_of_samples(
    at: str, algo: PolicyAlgo, budget: RLBudget, numbers: Mapping[str, float], rollout: Rollout
) -> None:
    needed = needs_of(algo.policy_loss)
    if needed.on_policy and budget.epochs > 1:
        raise ConfigError(
            f"{at}.epochs={budget.epochs}: {_called(algo, 'policy_loss')} is right only for samples of the very "
            "policy that learns. Set 1, or choose a loss with a ratio, such as ppo_clip or truncated_is."
        )
    if needed.on_policy and algo.replay:
        raise ConfigError(
            f"{at}.replay_steps={numbers['replay_steps']}: {_called(algo, 'policy_loss')} does not weigh older "
            "policies' samples. Remove the key, or set policy_loss: truncated_is."
        )
    if algo.replay and numbers["replay_updates"] > numbers["replay_steps"]:
        raise ConfigError(
            f"{at}.replay_updates={numbers['replay_updates']}: more than the {numbers['replay_steps']} steps that are "
            "kept. Lower it, or raise replay_steps."
        )
    cut = {key: getattr(rollout, key) for key in ("top_k", "top_p", "min_p") if getattr(rollout, key) is not None}
    for key, value in cut.items() if needed.behaviour or algo.replay else ():
        raise ConfigError(
            f"{at}: rollout.{key}={value} draws from a part of the distribution, and {_called(algo, 'policy_loss')} "
            f"divides by the probability of the draw in the whole. Set rollout.{key}: null."
        )


def _called(algo: PolicyAlgo, choice: str) -> str:
    """How to name an op in a message, such as `'rloo' (advantage leave_one_out)`."""
    return f"{algo.name!r} ({choice} {getattr(algo, choice).__name__})"


def _require_source(at: str, section: Policy, expected: str, why: str) -> None:
    """The input that DVC tracks must be the one that the trainer reads, or a change of it would go unnoticed."""
    room = expected.removesuffix("NAME")
    fits = section.learns_from.startswith(room) if room != expected else section.learns_from == expected
    if not fits:
        raise ConfigError(f"{at}.learns_from={section.learns_from}: {why}. Set {expected}.")
