"""`rlpipe bandit`: one algorithm on a small bandit, beside where it must end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import Tensor

from rlpipe.algos import ALGOS
from rlpipe.algos.base import PolicyAlgo, PreferenceAlgo, SectionAlgo, StageAlgo
from rlpipe.algos.choices import choices_of, composed
from rlpipe.algos.plan import Composed, DistillationPlan, PreferencePlan, RLPlan, SupervisedPlan, plan
from rlpipe.algos.sections import sectionable
from rlpipe.bandit import optimum
from rlpipe.bandit.offline import distil, learn_pairs, sampled_pairs
from rlpipe.bandit.online import Table
from rlpipe.bandit.table import Bandit, bandit, kl, total_variation
from rlpipe.config.schema import Numbers, Policy, Rollout
from rlpipe.errors import ConfigError, nearest

FOUR_ARMS = bandit(
    reward=[[0.0, 0.2, 0.6, 1.0], [1.0, 0.5, 0.0, 0.7], [0.3, 0.9, 0.8, 0.1]],
    reference=[[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]],
)
# For losses whose minimum has a closed form only between two arms.
TWO_ARMS = bandit(
    reward=[[1.0, 0.0], [0.2, 0.8], [0.5, 0.4]],
    reference=[[0.5, 0.5], [0.7, 0.3], [0.3, 0.7]],
)
# What the teacher of the distillation algorithms is: Boltzmann's policy at this weight.
TEACHER_KL_COEF = 0.3

_OPTIM = {"schedule": "linear", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1.0}
_DRAWN = {"steps": 300, "prompts_per_step": 24, "group_size": 8}
_MEASURED = {"measure_every": 1, "measure_prompts": 1}
_ONLINE = {**_DRAWN, "learns_from": "data/prepared", "reward": {"table": 1.0}, "epochs": 1, "minibatches": 1, "lr": 4.0}
_OFFLINE = {**_MEASURED, "learns_from": "data/pairs/gold", "steps": 400, "batch_size": 400_000, "lr": 0.1}
_TAUGHT = {**_DRAWN, **_MEASURED, "learns_from": "models/teacher", "lr": 0.1}
# What this bandit wants otherwise than the algorithm's source recommends for language models.
_NUMBERS: dict[str, dict[str, float]] = {
    "conservative_ppo": {"kl_coef": 1.0, "kl_threshold": 0.2, "kl_target": 0.2},
    "dpo": {"beta": 0.5},
    "ipo": {"tau": 0.5},
    "kto": {"beta": 0.5},
    "simpo": {"beta": 1.0, "target_margin": 0.5},
    "orpo": {"odds_weight": 1.0},
}
_KL_COEF = 0.5
# A squared penalty whose weight doubles is steep: long steps would jump over its valley and double it for ever.
_LR = {"conservative_ppo": 1.5}
# Budget keys that mean something here.
_SETTABLE = ("steps", "prompts_per_step", "group_size", "epochs", "minibatches", "lr", "batch_size")
# Numbers of what happens to scores before the algorithm sees them: a table's rewards are as they are.
_SHAPING = {"reward_scale", "reward_clip"}
_WEIGHTS = ("kl_coef", "beta", "tau", "odds_weight")
_ROLLOUT = Rollout(
    engine="transformers", temperature=1.0, top_k=None, top_p=None, min_p=None,
    max_new_tokens=1, batch_size=1, token_budget=None,
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        policy_SPK: [S, P, K] nats, log-probs after every step.
        target_PK: [P, K] nats, where it must end; None where no formula says. `why` says which formula.
        kl_coef: the weight of the KL term at the end; None for algorithms without.
    """

    plan: Composed
    bandit: Bandit
    policy_SPK: Tensor
    target_PK: Tensor | None
    why: str
    kl_coef: float | None


def run(name: str, assignments: Sequence[str], steps: int | None, beta: float | None, seed: int) -> Outcome:
    """Train `name` with `key=value` assignments of a policy section laid over the bandit's own.

    Args: beta: the weight of what holds the policy near its reference, under whatever name the algorithm knows it.
    Raises: ConfigError for an unknown algorithm or key, or what `algos.plan` refuses.
    """
    algo = _algorithm(name)
    chosen = dict(_assignment(text, algo) for text in assignments)
    if steps is not None:
        chosen["steps"] = steps
    if beta is not None:
        chosen[_weight(algo)] = beta
    return trained(planned(algo, chosen), seed)


def planned(algo: SectionAlgo, chosen: dict[str, Any]) -> Composed:
    """The bandit's section for an algorithm, joined with it by the same rules as a section of params.yaml."""
    choices = {key: value for key, value in chosen.items() if key in choices_of(algo)}
    needed = composed(algo, choices, "bandit").numbers
    usual = {**algo.recommended, "kl_coef": _KL_COEF, **_NUMBERS.get(algo.name, {})}
    budget = _ONLINE if isinstance(algo, PolicyAlgo) else _OFFLINE if isinstance(algo, PreferenceAlgo) else _TAUGHT
    numbers = {key: value for key, value in usual.items() if key in needed or key == "entropy_coef"}
    section = {
        "algorithm": algo.name,
        "starts_from": "models/sft",
        **budget,
        "lr": _LR.get(algo.name, budget["lr"]),
        **numbers,
        **chosen,
    }
    section["optim"] = {**_OPTIM, "lr": float(section.pop("lr"))}
    made = plan("bandit", Policy.model_validate(section), _ROLLOUT)
    assert not isinstance(made, SupervisedPlan), "made of ops, as its algorithm is"
    prompts = len(FOUR_ARMS.ref_PK)
    if not isinstance(made, PreferencePlan) and made.budget.prompts_per_step % prompts:
        raise ConfigError(
            f"policy.bandit.prompts_per_step={made.budget.prompts_per_step}: the bandit has {prompts} prompts, each "
            "met equally often. Choose a multiple."
        )
    return made


def trained(made: Composed, seed: int) -> Outcome:
    """A plan carried out on the bandit that fits it."""
    if isinstance(made, RLPlan):
        learned = Table(made, FOUR_ARMS, seed).train()
        target_PK = optimum.resting_point(made.algo, made.numbers, learned.kl_coef, FOUR_ARMS, made.budget.group_size)
        kl_coef = None if made.algo.kl.placed == "none" else learned.kl_coef
        return Outcome(made, FOUR_ARMS, learned.policy_SPK, target_PK, _why(made, target_PK, learned.kl_coef), kl_coef)
    if isinstance(made, DistillationPlan):
        teacher_PK = optimum.boltzmann(FOUR_ARMS, TEACHER_KL_COEF)
        return Outcome(made, FOUR_ARMS, distil(made, FOUR_ARMS, teacher_PK, seed), teacher_PK, "the teacher", None)
    arms = TWO_ARMS if made.algo.pair_loss.__name__ in ("simpo", "orpo") else FOUR_ARMS
    policy_SPK = learn_pairs(made, arms, sampled_pairs(arms, made.budget.batch_size, seed))
    target_PK, why = pair_target(made, arms)
    return Outcome(made, arms, policy_SPK, target_PK, why, None)


def pair_target(made: PreferencePlan, arms: Bandit) -> tuple[Tensor | None, str]:
    """Where a pair loss has its minimum on endless Bradley-Terry pairs, and by which formula."""
    loss, numbers = made.algo.pair_loss.__name__, made.numbers
    if loss == "dpo" and numbers["label_smoothing"] == 0:
        return optimum.boltzmann(arms, numbers["beta"]), "reference exp(r / beta) / Z"
    if loss in ("ipo", "ipo_per_token"):
        return optimum.ipo_optimum(arms, numbers["tau"]), "reference exp(P(arm beats reference) / tau) / Z"
    if loss == "simpo":
        return optimum.simpo_optimum(arms, numbers["beta"], numbers["target_margin"]), "two arms: root of a quadratic"
    if loss == "orpo":
        return optimum.orpo_optimum(arms, numbers["odds_weight"]), "two arms: between imitation and the odds ratio"
    if loss == "kto":
        return None, "none inside: arms that lose more often than they win vanish"
    return None, "no closed form"


def report(outcome: Outcome) -> str:
    """The run as text: settings, one line an arm, distances."""
    learned_PK, arms = outcome.policy_SPK[-1], outcome.bandit
    columns = ["prompt", "arm", "reward", "reference", "target", "learned"]
    lines = [_settings(outcome.plan), "", "".join(f"{name:>11}" for name in columns)]
    for prompt, arm in torch.cartesian_prod(*(torch.arange(n) for n in learned_PK.shape)).tolist():
        target = "-" if outcome.target_PK is None else f"{outcome.target_PK[prompt, arm].exp():.4f}"
        cells = [prompt, arm, f"{arms.reward_PK[prompt, arm]:.2f}", f"{arms.ref_PK[prompt, arm].exp():.4f}",
                 target, f"{learned_PK[prompt, arm].exp():.4f}"]  # fmt: skip
        lines.append("".join(f"{cell:>11}" for cell in cells))
    lines += ["", f"target: {outcome.why}"]
    if outcome.target_PK is not None:
        lines.append(f"total variation to the target: {total_variation(learned_PK, outcome.target_PK):.4f}")
    if outcome.kl_coef:
        exact_PK = optimum.boltzmann(arms, outcome.kl_coef)
        distance = total_variation(learned_PK, exact_PK)
        lines.append(f"total variation to reference exp(r / {outcome.kl_coef:g}) / Z: {distance:.4f}")
    lines.append(f"KL(policy || reference): {kl(learned_PK, arms.ref_PK):.4f} nats")
    return "\n".join(lines)


def _settings(made: Composed) -> str:
    """The choices, numbers and budget in force."""
    algo, budget = made.algo, made.budget
    choices = []
    for key in choices_of(algo):
        if isinstance(algo, PolicyAlgo) and key.startswith("kl_"):
            value = getattr(algo.kl, key.removeprefix("kl_"))
        else:
            value = getattr(algo, key)
        choices.append(f"{key} {getattr(value, '__name__', value or 'none')}")
    spent = [f"{key} {getattr(budget, key):g}" for key in _SETTABLE if hasattr(budget, key)]
    numbers = [f"{key} {value:g}" for key, value in made.numbers.items()]
    parts = [[algo.name], choices, numbers, [*spent, f"lr {budget.optim.lr:g} falling to 0"]]
    return "\n".join(" · ".join(part) for part in parts if part)


def _why(made: RLPlan, target_PK: Tensor | None, kl_coef: float) -> str:
    penalty = made.algo.kl
    if target_PK is None:
        return "none inside: some arms vanish"
    if optimum.kl_is_idle(penalty) or kl_coef == 0:
        return "no KL in force: the best arm" if "entropy_coef" not in made.numbers else "reward and entropy alone"
    if penalty.placed == "reward" and made.numbers.get("entropy_coef", 0) == 0:
        return "reference exp(r / kl_coef) / Z"
    name = f"{penalty.estimator.__name__} in the {'reward' if penalty.placed == 'reward' else 'loss'}"
    return f"where the expected update is 0, with {name}{' (hinge)' if penalty.placed == 'hinge' else ''}"


def _algorithm(name: str) -> SectionAlgo:
    algo = ALGOS.get(name)
    if algo is None or isinstance(algo, StageAlgo):
        why = "unknown" if algo is None else "it has no policy to compare with an optimum"
        raise ConfigError(f"--algo {name}: {why}.{nearest(name, sectionable())}")
    return algo


def _weight(algo: SectionAlgo) -> str:
    """What --beta sets. A policy-gradient algorithm without KL is refused by its plan, which says how to add one."""
    if isinstance(algo, PolicyAlgo):
        return "kl_coef"
    names = [key for key in _WEIGHTS if key in algo.numbers]
    if not names:
        raise ConfigError(f"--beta: nothing holds {algo.name!r} near its reference; it learns a teacher. Remove it.")
    return names[0]


def _assignment(text: str, algo: SectionAlgo) -> tuple[str, Any]:
    key, equals, written = text.partition("=")
    if not equals:
        raise ConfigError(f"-S {text}: expected key=value, such as kl_placed=reward.")
    valid = {*_SETTABLE, *choices_of(algo), *Numbers.model_fields} - _SHAPING
    if key not in valid:
        raise ConfigError(f"-S {text}: {algo.name!r} has no {key!r} on a bandit.{nearest(key, valid)}")
    try:
        return key, YAML(typ="safe").load(written)
    except YAMLError:
        raise ConfigError(f"-S {text}: {written!r} cannot be read as YAML. Quote it.") from None
