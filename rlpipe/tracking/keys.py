"""Every metric's name, formula, unit, healthy range and writer. `docs/metrics.md` is this table as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rlpipe.errors import TrackingError, nearest

RL = "every online algorithm"
POLICY = "every policy"
PAIRS = "every algorithm on pairs"
EVERY = "every trainer"
BAKEOFF = "rlpipe bakeoff"
CORRECTED = "losses with importance weights"
CRITIC = "every algorithm with a critic"
VLLM = "rollout.engine: vllm, vllm_server"
HINGE = "kl_placed: hinge"
JUDGED = "every stage that asks a judge"


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
    Key("reward/score_mean", "mean over samples of the reward that the run is trained on, before any KL and any "
        "shaping; for algorithms without a reward the same as reward/gold_mean", "reward",
        "rises, then levels off", POLICY),
    Key("reward/gold_mean", "mean over the same samples of the held-out reward (`watch.heldout`); never "
        "trained on unless it is the reward itself", "reward", "rises with reward/score_mean; a gap that "
        "opens is reward hacking", POLICY),
    Key("reward/total_mean", "mean over samples of the summed per-token reward, KL placed in the reward "
        "included", "reward", "rises", RL),
    Key("reward/<component>_mean", "mean over samples of one component: 0 behind its closed gate, before norm, clip "
        "and weight", "reward",
        "rises if its weight is positive", POLICY),
    Key("reward/frac_zero_std", "share of prompts whose samples all score alike: they give no gradient to an "
        "algorithm that subtracts the group's mean; always 1 where group_size is 1", "share", "< 0.8", RL),
    Key("reward/prompts_kept", "prompts with a spread of scores that the step learned from, after resampling",
        "prompts",
        "= prompts_per_step", "resample_rounds"),
    Key("reward/missing_frac", "samples without a score / samples; they are left out of everything else", "share",
        "0; above rewards.max_missing the run stops", POLICY),
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
    Key("kl/rollout_train", "the same before anything has been learned from the step's samples, so what differs is "
        "sampler against trainer, r = π_trainer(a) / π_sampler(a): by the first update's own forward pass, or, for a "
        "sampler with arithmetic of its own, by one before it", "nats a token",
        "< 0.001; with vLLM in bfloat16 < 0.01", RL),
    Key("kl/threshold", "KL a response may have before the penalty begins", "nats a response", "as set", HINGE),
    Key("kl/violation", "mean over samples of max(0, KL of the response − threshold)", "nats a response",
        "near 0", HINGE),
    Key("kl/penalty", "kl/coef × mean over samples of the squared violation: what it adds to the loss", "1",
        "small beside policy/surrogate", HINGE),
    # ---- policy
    Key("policy/loss", "what is minimised, whole: policy loss, KL term, entropy bonus and, for a head on the "
        "policy's "
        "body, the value loss; on pairs the mean pair loss; for distillation the mean divergence a token", "1",
        "no target of its own; dpo: falls from log 2", POLICY),
    Key("policy/surrogate", "the policy loss alone, by the algorithm's own aggregation", "1",
        "no target of its own", RL),
    Key("policy/dual_clip_frac", "share of tokens with r > dual_clip and a negative advantage", "share", "< 0.02",
        "policy_loss: dual_clip"),
    Key("policy/clip_frac_low", "share of tokens with r < 1 − clip_low and a negative advantage", "share",
        "< 0.2", "losses with a clip"),
    Key("policy/clip_frac_high", "share of tokens with r > 1 + clip_high and a positive advantage", "share",
        "< 0.2", "losses with a clip"),
    Key("policy/ratio_mean", "mean over tokens of r = π(a) / π_sampled(a); for gspo of the response's r", "1",
        "0.98 to 1.02", RL),
    Key("policy/ratio_min", "smallest r of the step", "1", "> 0.1", RL),
    Key("policy/ratio_max", "largest r of the step", "1", "< 10", RL),
    Key("policy/entropy", "mean over tokens of −Σ_v π(v) log π(v)", "nats a token",
        "falls slowly; near 0 is collapse", RL),
    Key("policy/grad_norm", "L2 norm of all gradients before clipping", "1",
        "near or below optim.max_grad_norm", EVERY),
    Key("policy/skipped_frac", "sequences of an update that nothing in the loss depends on (advantage 0), which are "
        "not read, over all; the other policy/* are means over those that are read", "share",
        "reward/frac_zero_std where the loss has no KL and no entropy term, else 0", RL),
    Key("policy/lr", "learning rate of the step", "1", "as set", EVERY),
    # ---- value
    Key("value/loss", "value_coef × mean over tokens of the value loss", "reward²", "falls",
        CRITIC),
    Key("value/clip_frac", "share of tokens where the clipped error is the larger", "share", "< 0.2", CRITIC),
    Key("value/explained_var", "1 − Var(return − value) / Var(return), before the update", "share",
        "rises towards 1; below 0 is worse than a constant", CRITIC),
    Key("value/grad_norm", "L2 norm of the critic's gradients before clipping", "1",
        "near or below optim.max_grad_norm", CRITIC),
    Key("value/mean", "mean over tokens of the value estimate, before the update", "reward",
        "follows value/return_mean",
        "every algorithm with a critic or a running mean"),
    Key("value/return_mean", "mean over tokens of the return: the critic's target, or the response's score", "reward",
        "rises", RL),
    # ---- advantage and importance weights
    Key("advantage/mean", "mean over tokens of the advantage as used in the loss", "1", "near 0", RL),
    Key("advantage/std", "standard deviation over tokens of the same", "1", "0.3 to 2", RL),
    Key("is/weight_mean", "mean over tokens of the importance weight π(a) / π_sampled(a), after its cap", "1",
        "0.95 to 1.05", CORRECTED),
    Key("is/weight_max", "largest such weight", "1", "< 10", CORRECTED),
    Key("is/weight_min", "smallest such weight", "1", "> 0.1", CORRECTED),
    Key("is/ess", "effective sample size (Σw)² / (n Σw²)", "share", "> 0.9", CORRECTED),
    Key("is/trunc_frac", "share of weights that were truncated", "share", "< 0.05", CORRECTED),
    Key("is/staleness", "updates between the policy that sampled and the one that learns, mean over the step's",
        "updates", "≤ replay_steps × updates a step", "replay_steps"),
    Key("is/rollout_ratio_min", "smallest r = π_trainer(a) / π_sampler(a) over the step's tokens, before any cap", "1",
        "> 0.1", VLLM),
    Key("is/rollout_ratio_p01", "its 1% quantile", "1", "0.9 to 1", VLLM),
    Key("is/rollout_ratio_p50", "its median", "1", "0.99 to 1.01", VLLM),
    Key("is/rollout_ratio_p99", "its 99% quantile", "1", "1 to 1.1", VLLM),
    Key("is/rollout_ratio_max", "the largest", "1", "< 10; steps with more want rollout.correction", VLLM),
    Key("is/correction_mean", "mean over tokens of the weight that corrects for the sampler, after its cap", "1",
        "0.95 to 1.05", "rollout.correction"),
    Key("is/correction_cut_frac", "share of tokens whose weight was above the cap: truncated or masked", "share",
        "< 0.01", "rollout.correction"),
    # ---- length
    Key("length/mean", "mean over samples of response tokens, the end token included", "tokens", "stable",
        POLICY),
    Key("length/max", "longest response", "tokens", "≤ rollout.max_new_tokens", POLICY),
    Key("length/truncated_frac", "share of responses cut off before their end token", "share", "< 0.05",
        POLICY),
    Key("length/tokens_drawn", "tokens drawn to learn from, since the first step", "tokens",
        "≤ token_budget + a step",
        "every algorithm that samples"),
    # ---- supervised, reward model, preferences
    Key("sft/loss", "mean over completion tokens of −log π(token)", "nats a token", "falls", "sft"),
    Key("sft/token_accuracy", "share of completion tokens that are the most likely one", "share", "rises",
        "sft"),
    Key("reward_model/loss", "mean over pairs of −log σ((chosen − rejected score) / temperature − margin), with "
        "its centring term", "nats",
        "falls from log 2 = 0.693", "reward_model"),
    Key("reward_model/accuracy", "share of the step's pairs with chosen score > rejected score", "share",
        "> 0.5, rises", "reward_model"),
    Key("reward_model/margin", "mean over pairs of chosen score − rejected score", "logits", "rises from 0",
        "reward_model"),
    Key("reward_model/chosen_score", "mean raw score of the step's chosen responses", "logits",
        "above rejected_score", "reward_model"),
    Key("reward_model/rejected_score", "mean raw score of the step's rejected responses", "logits",
        "below chosen_score", "reward_model"),
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
    Key("process_reward_model/loss", "mean over steps of the cross-entropy of `this step is right`", "nats",
        "falls from log 2", "process_reward_model"),
    Key("process_reward_model/accuracy", "share of the batch's steps on the right side of 1/2", "share", "rises",
        "process_reward_model"),
    Key("process_reward_model/heldout_accuracy", "the same on held-out prompts", "share", "well above right_frac",
        "process_reward_model"),
    Key("process_reward_model/ci_low", "lower end of its 95% Wilson interval", "share", "above right_frac",
        "process_reward_model"),
    Key("process_reward_model/ci_high", "upper end of the same", "share", "≤ 1", "process_reward_model"),
    Key("process_reward_model/heldout_steps", "held-out steps", "steps", "≥ 200", "process_reward_model"),
    Key("process_reward_model/right_frac", "share of them that are right: the accuracy of always saying so", "share",
        "0.3 to 0.9", "process_reward_model"),
    Key("preference/accuracy", "share of pairs whose chosen response has the larger implicit reward", "share",
        "> 0.5, rises", PAIRS),
    Key("preference/margin", "mean over pairs of chosen_reward − rejected_reward", "1", "rises from 0", PAIRS),
    Key("preference/chosen_reward", "mean implicit reward of the chosen responses: β (log π − log π_ref) for "
        "dpo and kto, "
        "τ the same for ipo, β log π a token for simpo, λ log π a token for orpo", "1",
        "near or above its start; a steep fall is unlearning", PAIRS),
    Key("preference/rejected_reward", "the same of the rejected responses", "1", "falls", PAIRS),
    Key("preference/kl_baseline", "z of kto: mean log π − log π_ref on other prompts' responses, at least 0", "nats",
        "small", "kto"),
    Key("distillation/teacher_nll", "mean over tokens of −log π_teacher(a)", "nats a token",
        "falls for samples of the student; constant for the teacher's", "distillation"),
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
    Key("data/pairs_missing", "pairs of samples for which the judge has no verdict in one of the orders", "pairs",
        "0", "pairs"),
    Key("data/samples_missing", "samples without a score, which take no part", "samples",
        "0; above rewards.max_missing of them the stage stops", "pairs"),
    Key("data/tokens_drawn", "tokens of the samples that the pairs were made from", "tokens",
        "≤ token_budget + a prompt",
        "pairs"),
    Key("data/pairs_train", "pairs to learn from", "pairs", "≥ 100", "pairs"),
    Key("data/pairs_heldout", "pairs kept from training", "pairs", "≥ 100", "pairs"),
    # ---- judges
    Key("judge/heldout_accuracy", "share of held-out responses on which the embedded judge and the verifier that "
        "labels agree, right above 1/2", "share", "well above max(right_frac, 1 − right_frac)", "judge"),
    Key("judge/ci_low", "lower end of its 95% interval (Wilson)", "share", "above the base rate", "judge"),
    Key("judge/ci_high", "upper end of the same", "share", "near the accuracy", "judge"),
    Key("judge/<share>_ci_low", "lower end of the 95% interval (Wilson) of another share of this section", "share",
        "near the share", "judge, pairs"),
    Key("judge/<share>_ci_high", "upper end of the same", "share", "near the share", "judge, pairs"),
    Key("judge/accepted_wrong", "share of wrong responses that it calls right: what a policy will find", "share",
        "< 0.1", "judge"),
    Key("judge/refused_right", "share of right responses that it calls wrong", "share", "< 0.1", "judge"),
    Key("judge/right_frac", "share of right ones among the held-out responses", "share", "0.2 - 0.8", "judge"),
    Key("judge/heldout_responses", "responses to held-out prompts that it was measured on", "responses", "≥ 200",
        "judge"),
    Key("judge/missing", "questions or pairs without a verdict", "questions or pairs", "0", "judge, pairs"),
    Key("judge/lessons", "rows that it learned from", "rows", "≥ 1000", "judge"),
    Key("judge/<lesson>_right", "share of held-out lessons (principle, critique, revision; `_of_faults`: where the "
        "response breaks the principle) to which it replies word for word what the program does", "share", "> 0.8",
        "judge"),
    Key("judge/too_long", "questions that exceed its length: left out of its lessons, or without an answer",
        "questions", "0", JUDGED),
    Key("judge/judged", "questions that ended with a verdict or a text, each counted once", "questions", "all", JUDGED),
    Key("judge/malformed", "questions whose reply is none of those that count", "questions", "0", JUDGED),
    Key("judge/refused", "questions that the judge would not answer", "questions", "0", JUDGED),
    Key("judge/timed_out", "questions without a whole reply in time, in all attempts", "questions", "0", JUDGED),
    Key("judge/rate_limited", "questions that met status 429 in all attempts", "questions", "0", JUDGED),
    Key("judge/server_error", "questions that met status 5xx or a lost connection in all attempts", "questions", "0",
        JUDGED),
    Key("judge/prompt_tokens", "tokens of the questions whose answers were used", "tokens", "as planned", JUDGED),
    Key("judge/completion_tokens", "tokens of these answers", "tokens", "as planned", JUDGED),
    Key("judge/cost", "(prompt_tokens · judge_calls.prompt_price + completion_tokens · judge_calls.completion_price) / "
        "10⁶: what the answers used cost, whenever they were asked for", "the prices' currency", "as planned", JUDGED),
    Key("judge/calls", "calls that this run made, failed attempts among them; a judgment from file needs none; logged "
        "also where the run fails", "calls", "0 in a rerun, else near judge/judged", JUDGED),
    Key("judge/calls_prompt_tokens", "tokens of the questions of these calls; of a failed one nobody counts any",
        "tokens", "as planned", JUDGED),
    Key("judge/calls_completion_tokens", "tokens of the replies to them", "tokens", "as planned", JUDGED),
    Key("judge/calls_cost", "as judge/cost, of these calls: what this run paid", "the prices' currency",
        "0 in a rerun, else near judge/cost", JUDGED),
    Key("judge/canary_pass_rate", "share of comparisons that a canary (an answer that says nothing) wins against an "
        "honest response", "share", "0", "judge, pairs"),
    Key("judge/canary/<name>", "the same of one canary", "share", "0", "judge, pairs"),
    Key("judge/pairs", "pairs with a verdict in both orders", "pairs", "nearly all", "pairs"),
    Key("judge/tied", "share of them that are a tie: the orders disagree, or both say so", "share", "< 0.3", "pairs"),
    Key("judge/agreement", "share of them with the same verdict in both orders", "share", "> 0.8", "pairs"),
    Key("judge/kappa", "Cohen's κ of the two orders", "1", "> 0.6", "pairs"),
    Key("judge/first_shown", "share of verdicts for the response shown first", "share", "0.5 is without bias", "pairs"),
    Key("judge/flipped", "pairs that the order alone decided", "pairs", "few", "pairs"),
    Key("judge/flipped_to_first", "share of those that went to the response shown first", "share",
        "0.5 is without bias", "pairs"),
    Key("judge/accuracy", "share of verdicts that the evaluation's verifier finds right, over the pairs that it tells "
        "apart; a tie is half", "share", "well above 0.5", "pairs"),
    Key("judge/labelled_pairs", "pairs that the verifier tells apart", "pairs", "≥ 100", "pairs"),
    Key("judge/longer_wins_accuracy", "the accuracy of preferring the longer response", "share",
        "below judge/accuracy", "pairs"),
    Key("judge/longer_wins_labelled_pairs", "pairs of that baseline", "pairs", "as labelled_pairs", "pairs"),
    Key("judge/label_accuracy", "share of the set's labels that the evaluation's verifier finds right, over the pairs "
        "that it tells apart; where a reward labels in which the judge has a part", "share", "well above 0.5", "pairs"),
    Key("judge/label_agreement", "share of the judge's own verdicts on these pairs that prefer what the reward does; a "
        "tie is half", "share", "> 0.8", "pairs"),
    # ---- constitution
    Key("constitution/round_<number>_texts", "texts after a round of critique and revision; 0 is the response drawn",
        "texts", "all of them", "constitution"),
    Key("constitution/round_<number>_pass", "share of them that the evaluation's verifier lets pass", "share",
        "rises with the rounds", "constitution"),
    Key("constitution/round_<number>_ci_low", "lower end of its 95% interval (Wilson)", "share", "near the share",
        "constitution"),
    Key("constitution/round_<number>_ci_high", "upper end of the same", "share", "near the share", "constitution"),
    Key("constitution/round_<number>_changed", "share of texts that are another than before the round", "share",
        "falls with the rounds", "constitution"),
    Key("constitution/missing_<kind>", "prompts whose rounds ended early, by the step that lacks a text and why",
        "prompts", "0", "constitution"),
    Key("data/demonstrations", "prompts with their last revision, to learn from", "prompts", "≥ 500", "constitution"),
    # ---- bakeoff: every one for each algorithm, over the bakeoff's seeds
    Key("bakeoff/<algorithm>/accuracy", "pass_at_1 on the held-out tasks, mean over seeds", "share",
        "above sft's", BAKEOFF),
    Key("bakeoff/<algorithm>/ci_low", "lower end of the 95% t-interval of accuracy over seeds; none of one seed",
        "share", "above sft's ci_high", BAKEOFF),
    Key("bakeoff/<algorithm>/ci_high", "upper end of the same", "share", "near accuracy; may exceed 1", BAKEOFF),
    Key("bakeoff/<algorithm>/gain", "accuracy − sft's accuracy with the same seed, mean over seeds", "share",
        "> 0", BAKEOFF),
    Key("bakeoff/<algorithm>/tokens_to_threshold", "tokens generated when the moving mean of reward/gold_mean "
        "over 5 measurements first reaches the threshold, mean over the seeds that reach it", "tokens",
        "low; missing where no seed reaches it", BAKEOFF),
    Key("bakeoff/<algorithm>/seeds_reached", "seeds that reach the threshold", "seeds", "all", BAKEOFF),
    Key("bakeoff/<algorithm>/seed_std", "sample standard deviation of accuracy between seeds", "share", "< 0.03",
        BAKEOFF),
    Key("bakeoff/<algorithm>/worst_drop", "largest fall of the moving mean of reward/gold_mean below its highest "
        "value so far, worst over seeds", "reward", "< 0.1; more is a collapse", BAKEOFF),
    Key("bakeoff/<algorithm>/kl", "KL to the SFT policy on the held-out tasks, Σ log π(a) − log π_ref(a), mean "
        "over seeds", "nats a response", "low for its accuracy", BAKEOFF),
    Key("bakeoff/<algorithm>/tokens", "tokens generated to learn from, mean over seeds", "tokens",
        "near recipe.online.token_budget", BAKEOFF),
    Key("bakeoff/<algorithm>/seconds", "wall time of the policy stage's steps, mean over seeds", "seconds", "low",
        BAKEOFF),
    Key("bakeoff/<algorithm>/peak_mem_gb", "largest perf/peak_mem_gb over seeds", "GB", "below the device's",
        BAKEOFF),
    Key("bakeoff/<algorithm>/seeds", "seeds whose training and evaluation finished", "seeds", "all", BAKEOFF),
    # ---- watch: W is the last watch.window measured steps, W1 the first; a spread is the standard deviation of a
    # reward over the samples of a step, of all steps of W1 together
    Key("watch/hacking_gap", "trained_rise − heldout_rise: by how much the reward trained on outran the held-out one",
        "spreads", "< 1; what widens with KL is reward hacking", RL),
    Key("watch/trained_rise", "(mean over W of reward/score_mean − the same over W1) / spread of that reward",
        "spreads", "rises", RL),
    Key("watch/heldout_rise", "(mean over W of reward/gold_mean − the same over W1) / spread of that reward",
        "spreads", "rises with trained_rise", POLICY),
    Key("watch/heldout_drop", "(highest mean of reward/gold_mean over any window so far − its mean over W) / spread: "
        "what was lost again (arXiv:2210.10760)", "spreads", "< 0.5; sampling alone makes 0.2", POLICY),
    Key("watch/length", "mean over W of length/mean", "tokens", "within a factor 1.5 of its start", POLICY),
    Key("watch/repetition", "mean over W of the share of n-grams of a response's tokens that stand earlier in it "
        "(seq-rep-n of arXiv:1908.04319), n = watch.repetition_ngram", "share", "rises by < 0.1", POLICY),
    Key("watch/format_tricks", "mean over W of the share of responses with a tag or another mark of an answer twice, "
        "or text beside their tags", "share", "rises by < 0.1", POLICY),
    Key("watch/<component>_share", "Cov(what the component adds to the reward, the reward) / Var(reward), over the "
        "samples of each step of W; over all components they add up to 1", "share", "near its start",
        "rewards of several components"),
    Key("watch/dominance", "largest rise since W1 of the share of a component that the held-out reward does "
        "not have", "share", "< 0.3",
        "rewards of several components"),
    Key("watch/canary_pass_rate", "canaries whose reward is above that of most of the policy's own first answers "
        "to the same prompts / all canaries; once, at the first step", "share", "0", RL),
    Key("watch/tripped", "sentinels that have tripped so far", "sentinels", "0", POLICY),
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
        "reward_model": "Reward model", "process_reward_model": "Process reward model",
        "preference": "Preferences", "distillation": "Distillation", "judge": "Judge",
        "constitution": "Constitution", "watch": "Reward hacking watch", "eval": "Evaluation",
        "bakeoff": "Comparison", "data": "Data", "time": "Time", "perf": "Throughput",
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
