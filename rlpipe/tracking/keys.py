"""Every metric's name, formula, unit, healthy range and writer. `docs/metrics.md` is this table as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rlpipe.errors import TrackingError, nearest

RL = "every online algorithm"
POLICY = "every policy"
DPO = "dpo"
EVERY = "every trainer"
CORRECTED = "algorithms that correct for the sampler"


@dataclass(frozen=True)
class Key:
    """One metric. In a `name`, `<part>` stands for any `[a-z0-9_.]+`."""

    name: str
    formula: str
    unit: str
    healthy: str
    writer: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """What names this row covers."""
        return re.compile(re.sub(r"<[a-z]+>", "[a-z0-9_.]+", re.escape(self.name)))


KEYS: tuple[Key, ...] = (
    # ---- reward
    Key("reward/score_mean", "mean over samples of the reward that the run is trained on, before any KL; for "
        "dpo, which has none, the same as reward/gold_mean", "reward", "rises, then levels off", POLICY),
    Key("reward/gold_mean", "mean over the same samples of the evaluation's score (`evaluate.reward`); never "
        "trained on unless it is the reward itself", "reward", "rises with reward/score_mean; a gap that "
        "opens is reward hacking", POLICY),
    Key("reward/total_mean", "mean over samples of the summed per-token reward, KL placed in the reward "
        "included", "reward", "rises", RL),
    Key("reward/<component>_mean", "mean over samples of one component, unweighted", "reward",
        "rises if its weight is positive", POLICY),
    Key("reward/frac_zero_std", "share of prompts whose samples all score alike: they give no gradient to an "
        "algorithm that subtracts the group's mean; always 1 where group_size is 1", "share", "< 0.8", RL),
    Key("reward/missing_frac", "samples without a score / samples", "share", "0", POLICY),
    # ---- KL
    Key("kl/ref_k1_token", "mean over response tokens of log π(a) − log π_ref(a), untempered", "nats a token",
        "0 to 0.5; noisy, may be negative", POLICY),
    Key("kl/ref_k3_token", "mean over response tokens of r − 1 − log r, r = π_ref(a) / π(a), untempered",
        "nats a token", "0 to 0.5; never negative", POLICY),
    Key("kl/ref_seq_sum", "mean over samples of the response's sum of log π(a) − log π_ref(a), untempered",
        "nats a response", "rises from 0, then levels off", POLICY),
    Key("kl/coef", "weight of the KL penalty in force at this step", "1", "as set", RL),
    Key("kl/old_new", "mean over tokens of r − 1 − log r, r = π(a) / π_sampled(a) at the sampling "
        "temperature, as each update begins; averaged over the step's updates", "nats a token", "< 0.02", RL),
    Key("kl/rollout_train", "the same in the step's first update alone: nothing has been learned yet, so "
        "what differs there is sampler against trainer", "nats a token", "< 0.001", RL),
    # ---- policy
    Key("policy/loss", "the loss that is minimised, by the algorithm's own aggregation; for dpo the mean "
        "over pairs of −log σ(margin), smoothed by label_smoothing", "1",
        "no target of its own; dpo: falls from log 2", POLICY),
    Key("policy/clip_frac_low", "share of tokens with r < 1 − clip_low and a negative advantage", "share",
        "< 0.2", RL),
    Key("policy/clip_frac_high", "share of tokens with r > 1 + clip_high and a positive advantage", "share",
        "< 0.2", RL),
    Key("policy/ratio_mean", "mean over tokens of r = π(a) / π_sampled(a)", "1", "0.98 to 1.02", RL),
    Key("policy/ratio_max", "largest r of the step", "1", "< 10", RL),
    Key("policy/entropy", "mean over tokens of −Σ_v π(v) log π(v)", "nats a token",
        "falls slowly; near 0 is collapse", RL),
    Key("policy/grad_norm", "L2 norm of all gradients before clipping", "1",
        "near or below optim.max_grad_norm", EVERY),
    Key("policy/lr", "learning rate of the step", "1", "as set", EVERY),
    # ---- value
    Key("value/loss", "mean over tokens of the critic's clipped squared error / 2", "reward²", "falls",
        "ppo"),
    Key("value/clip_frac", "share of tokens where the clipped error is the larger", "share", "< 0.2", "ppo"),
    Key("value/explained_var", "1 − Var(return − value) / Var(return), before the update", "share",
        "rises towards 1; below 0 is worse than a constant", "ppo"),
    Key("value/grad_norm", "L2 norm of the critic's gradients before clipping", "1",
        "near or below optim.max_grad_norm", "ppo"),
    # ---- advantage and importance weights
    Key("advantage/mean", "mean over tokens of the advantage as used in the loss", "1", "near 0", RL),
    Key("advantage/std", "standard deviation over tokens of the same", "1", "0.3 to 2", RL),
    Key("is/weight_mean", "mean over tokens of the weight between sampler and trainer, after truncation", "1",
        "0.95 to 1.05", CORRECTED),
    Key("is/weight_max", "largest such weight", "1", "< 10", CORRECTED),
    Key("is/weight_min", "smallest such weight", "1", "> 0.1", CORRECTED),
    Key("is/ess", "effective sample size (Σw)² / (n Σw²)", "share", "> 0.9", CORRECTED),
    Key("is/trunc_frac", "share of weights that were truncated", "share", "< 0.05", CORRECTED),
    Key("is/staleness", "optimizer steps between the policy that sampled and the one that learns, mean",
        "steps", "≤ the bound that is set", "asynchronous runs"),
    # ---- length
    Key("length/mean", "mean over samples of response tokens, the end token included", "tokens", "stable",
        POLICY),
    Key("length/max", "longest response", "tokens", "≤ rollout.max_new_tokens", POLICY),
    Key("length/truncated_frac", "share of responses cut off before their end token", "share", "< 0.05",
        POLICY),
    # ---- supervised, reward model, preferences
    Key("sft/loss", "mean over completion tokens of −log π(token)", "nats a token", "falls", "sft"),
    Key("sft/token_accuracy", "share of completion tokens that are the most likely one", "share", "rises",
        "sft"),
    Key("reward_model/loss", "mean over pairs of −log σ(chosen score − rejected score)", "nats",
        "falls from log 2 = 0.693", "reward_model"),
    Key("reward_model/accuracy", "share of the step's pairs with chosen score > rejected score", "share",
        "> 0.5, rises", "reward_model"),
    Key("reward_model/margin", "mean over pairs of chosen score − rejected score", "logits", "rises from 0",
        "reward_model"),
    Key("reward_model/heldout_accuracy", "held-out pairs with chosen score > rejected score / held-out "
        "pairs; equal scores count as wrong", "share", "≥ 0.7", "reward_model"),
    Key("reward_model/ci_low", "lower end of the 95% Wilson interval of heldout_accuracy", "share", "> 0.5",
        "reward_model"),
    Key("reward_model/ci_high", "upper end of the same", "share", "≤ 1", "reward_model"),
    Key("reward_model/heldout_pairs", "pairs kept from training", "pairs", "≥ 100", "reward_model"),
    Key("reward_model/<side>_mean", "mean score of the held-out chosen or rejected responses, in units of "
        "the score's spread on training pairs", "spreads", "chosen above rejected", "reward_model"),
    Key("reward_model/<side>_std", "standard deviation of the same", "spreads", "0.3 to 2", "reward_model"),
    Key("reward_model/pairs_too_long", "pairs left out because a response exceeds model.max_length", "pairs",
        "near 0", "reward_model"),
    Key("dpo/accuracy", "share of pairs with margin > 0", "share", "> 0.5, rises", DPO),
    Key("dpo/margin", "mean over pairs of chosen_reward − rejected_reward", "nats", "rises from 0", DPO),
    Key("dpo/chosen_reward", "β (log π(chosen) − log π_ref(chosen)), mean over pairs", "nats",
        "near or above 0; a steep fall is unlearning", DPO),
    Key("dpo/rejected_reward", "β (log π(rejected) − log π_ref(rejected)), mean over pairs", "nats",
        "falls below 0", DPO),
    # ---- evaluation
    Key("eval/<task>/pass_at_1", "held-out tasks whose one sample scores ≥ evaluate.pass_threshold / "
        "held-out tasks", "share", "rises", "evaluate"),
    Key("eval/<task>/ci_low", "lower end of the 95% Wilson interval of pass_at_1", "share",
        "above sft's ci_high", "evaluate"),
    Key("eval/<task>/ci_high", "upper end of the same", "share", "≤ 1", "evaluate"),
    # ---- data
    Key("data/rows_in", "rows read", "rows", "= rows_kept + rows_quarantined", "prepare"),
    Key("data/rows_kept", "rows that are used", "rows", "near rows_in", "prepare"),
    Key("data/rows_quarantined", "rows set aside with a reason", "rows", "≤ data.max_quarantine_rate × "
        "rows_in", "prepare"),
    Key("data/rows", "rows or prompts that the stage works on", "rows", "as prepared", "sft, pairs"),
    Key("data/too_long", "rows left out because they exceed model.max_length", "rows", "near 0",
        "sft, pairs"),
    Key("data/ties_dropped", "prompts whose samples all score alike and give no pair", "prompts",
        "< half of data/rows", "pairs"),
    Key("data/pairs_train", "pairs to learn from", "pairs", "≥ 100", "pairs"),
    Key("data/pairs_heldout", "pairs kept from training", "pairs", "≥ 100", "pairs"),
    # ---- time
    Key("time/<phase>_s", "wall time of one phase of the step; on a pipeline's run, of one stage", "seconds",
        "the phase you expect is the longest", EVERY),
    Key("perf/tokens_per_s", "tokens of the step / its wall time", "tokens a second", "stable", EVERY),
    Key("perf/peak_mem_gb", "largest memory held on the device so far", "GB", "below the device's", EVERY),
)  # fmt: skip

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

_LEGAL = re.compile(r"[a-z0-9_./]+")


@cache
def check(name: str) -> None:
    """Refuse a metric that the table does not know. Raises: TrackingError."""
    if not _LEGAL.fullmatch(name):
        raise TrackingError(f"metric {name!r}: only [a-z0-9_./] may stand in a name. Rename it.")
    if not any(key.pattern.fullmatch(name) for key in KEYS):
        raise TrackingError(
            f"metric {name!r}: not in the table of metrics.{nearest(name, [key.name for key in KEYS])} "
            "For a new one, add its row to rlpipe/tracking/keys.py and call keys.write()."
        )


def document() -> str:
    """The text of `docs/metrics.md`."""
    sections = {
        "reward": "Reward", "kl": "KL", "policy": "Policy", "value": "Value", "advantage": "Advantage",
        "is": "Importance weights", "length": "Length", "sft": "Supervised fine-tuning",
        "reward_model": "Reward model", "dpo": "Preferences", "eval": "Evaluation", "data": "Data",
        "time": "Time", "perf": "Throughput",
    }  # fmt: skip
    lines = [
        "# Metrics",
        "",
        "Every name that a stage may send to MLflow; a name that is not here is refused. π is the policy,",
        "π_ref the SFT policy, a a sampled token. Healthy ranges are rules of thumb: where to look first.",
        "",
        "This file is the table of `rlpipe/tracking/keys.py` as text:",
        '`python -c "from rlpipe.tracking.keys import write; write()"` writes it; a test compares.',
    ]
    for prefix, title in sections.items():
        lines += ["", f"## {title}", ""]
        lines += ["| name | formula | unit | healthy | written by |", "|---|---|---|---|---|"]
        lines += [
            f"| `{key.name}` | {key.formula} | {key.unit} | {key.healthy} | {key.writer} |"
            for key in KEYS
            if key.name.partition("/")[0] == prefix
        ]
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write `docs/metrics.md` of this checkout anew."""
    DOCUMENT.write_text(document(), encoding="utf-8")
