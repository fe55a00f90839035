"""Online RL: sample, score, estimate advantages, improve. One trainer for every policy-gradient algorithm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from rlpipe.algos.objective import estimate
from rlpipe.algos.plan import RLPlan
from rlpipe.checkpoint.store import Rows, Stateful, Store
from rlpipe.config.schema import Correction
from rlpipe.errors import GateError
from rlpipe.models.learner import Reference
from rlpipe.ops.importance import LEVELS, MODES, mismatch
from rlpipe.ops.masking import masked_mean, masked_std, zero_outside
from rlpipe.ops.needs import needs_of
from rlpipe.ops.rewards import terminal
from rlpipe.ops.value import explained_variance
from rlpipe.training.adaptive import Coefficient, RewardShaping
from rlpipe.training.batching import Batching
from rlpipe.training.collect import Collected, Collector
from rlpipe.training.critic import Critic
from rlpipe.training.experience import Experience, Replay
from rlpipe.training.improve import Improver
from rlpipe.training.loop import Phases, Recorder, StepResult, TokenBudget, run_steps
from rlpipe.training.samples import Samples, exact_kl_in_parts, kl_metrics, logp_in_parts, reference_logp
from rlpipe.training.watch import Seen, Watch

# Largest log-prob difference (nats) at step 0 between what must be the same model: float32 arithmetic in
# another order, or bfloat16's three digits.
GATE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}
# The same in the mean, between the trainer and a sampler with arithmetic of its own: in bfloat16 a token in thousands
# may be far off.
MEAN_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}

# Rewards per token beside the score: [B, T] reward units for some samples.
ProcessReward = Callable[[Samples], Tensor]


class RLTrainer:
    """Improves `policy` by `plan`. Everything that remembers from step to step is in `states`."""

    def __init__(
        self,
        plan: RLPlan,
        policy: nn.Module,
        reference: Reference,
        critic: Critic,
        collector: Collector,
        process_reward: ProcessReward | None,
        watch: Watch,
        batching: Batching,
        seed: int,
        correction: Correction | None = None,
    ) -> None:
        self._correction = correction
        self._plan, self._policy, self._reference, self._critic = plan, policy, reference, critic
        self._collector, self._process_reward, self._watch = collector, process_reward, watch
        self._batching, self._seed = batching, seed
        self._coefficient = Coefficient(plan.algo.kl, plan.numbers)
        self._shaping = RewardShaping(plan.budget.reward_norm, plan.numbers)
        self._budget = TokenBudget(plan.budget.token_budget)
        self._improver = Improver(plan, policy, reference, critic, collector.sampler.sampling, batching, seed)
        self._states: dict[str, Stateful] = {
            "policy": self._improver.learner,
            "kl_coef": self._coefficient,
            "shaping": self._shaping,
            **critic.states,
        }
        self._replay = None
        if plan.algo.replay:
            numbers = plan.numbers
            self._replay = Replay(int(numbers["replay_steps"]), int(numbers["replay_updates"]), seed)
            self._states["replay"] = self._replay
        if plan.budget.reference_refresh_steps is not None:
            self._states["reference"] = reference

    def train(self, store: Store, recorder: Recorder) -> Rows:
        """Returns: one row of metrics a step."""
        return run_steps(
            self._plan.budget.steps,
            self._one_step,
            states=self._states,
            limits={"budget": self._budget, "watch": self._watch},
            store=store,
            recorder=recorder,
            seed=self._seed,
            shown={"reward/score_mean": "reward", "kl/ref_seq_sum": "kl", "length/mean": "len"},
        )

    def _one_step(self, step: int) -> StepResult:
        phases = Phases()
        self._collector.sampler.engine.refresh()
        collected = self._collector.collect(step)
        self._budget.spend(collected.tokens)
        phases.mark("rollout")
        fresh, metrics = self._experience(collected, step)
        phases.mark("forward")
        learned_from = [fresh] if self._replay is None else self._replay.learn_from(fresh, step)
        # Where sampler and trainer were compared before any update, that comparison stands.
        metrics = metrics | self._improver.improve(learned_from, step, self._coefficient.value) | metrics
        self._coefficient.follow(metrics["kl/ref_seq_sum"])
        refresh = self._plan.budget.reference_refresh_steps
        if refresh is not None and (step + 1) % refresh == 0:
            self._reference.refresh()
        phases.mark("train")
        metrics["length/tokens_drawn"] = float(self._budget.drawn)
        return StepResult(metrics, collected.tokens, phases.seconds)

    def _experience(self, collected: Collected, step: int) -> tuple[Experience, dict[str, float]]:
        plan, samples, batch = self._plan, collected.samples, collected.samples.batch
        mask_BT = batch.response_mask_BT
        ref_logp_BT = reference_logp(self._reference, batch, self._batching)
        old_logp_BT, logp_BT = self._own_logps(samples)
        if step == 0:
            self._gate(samples, ref_logp_BT)
        reward_BT, seen, metrics = self._rewards(collected)
        kl_BT = self._penalty(samples, logp_BT, ref_logp_BT)
        estimated = partial(estimate, plan.algo, plan.numbers, self._coefficient.value)

        def returns(rows: list[int], value_RT: Tensor) -> Tensor:
            _, advantage = estimated(reward_BT[rows], kl_BT[rows], value_RT, samples.group_B[rows], mask_BT[rows])
            return advantage.return_BT

        value_BT = self._improver.values(batch, returns)
        total_BT, advantage = estimated(reward_BT, kl_BT, value_BT, samples.group_B, mask_BT)
        self._critic.follow(collected.score_B)
        metrics |= {
            "reward/total_mean": total_BT.sum(1).mean().item(),
            **kl_metrics(logp_BT, ref_logp_BT, mask_BT),
            "kl/coef": self._coefficient.value,
            "advantage/mean": masked_mean(advantage.adv_BT, mask_BT).item(),
            "advantage/std": masked_std(advantage.adv_BT, mask_BT).item(),
            "value/return_mean": masked_mean(advantage.return_BT, mask_BT).item(),
        }
        if plan.algo.baseline != "none":
            metrics["value/mean"] = masked_mean(value_BT, mask_BT).item()
        if plan.algo.has_critic:
            metrics["value/explained_var"] = explained_variance(value_BT, advantage.return_BT, mask_BT).item()
        adv_BT, compared = self._corrected(advantage.adv_BT, old_logp_BT, samples)
        metrics |= compared
        metrics |= self._watch.take(step, seen, metrics["kl/ref_seq_sum"])
        born = self._improver.learner.done
        return Experience(
            batch, samples.group_B, old_logp_BT, ref_logp_BT, value_BT,
            adv_BT, advantage.return_BT, born,
        ), metrics  # fmt: skip

    def _rewards(self, collected: Collected) -> tuple[Tensor, Seen, dict[str, float]]:
        """[B, T] shaped score on the last token, and process rewards where they stand; what the watch sees; the
        step's metrics so far.
        """
        seen, metrics = collected.seen, dict(collected.metrics)
        reward_BT = terminal(self._shaping(collected.score_B), collected.samples.batch.response_mask_BT)
        if self._process_reward is not None:
            process_BT = self._process_reward(collected.samples)
            mean = process_BT.sum(1).mean().item()
            metrics["reward/process_reward_model_mean"] = mean
            metrics["reward/score_mean"] += mean
            reward_BT = reward_BT + process_BT
            seen = seen.with_process(collected.score_B.tolist(), process_BT.sum(1).tolist())
        return reward_BT, seen, metrics

    def _penalty(self, samples: Samples, logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
        """[B, T] KL per token by the algorithm's estimator; read only where it is placed in the reward."""
        kl = self._plan.algo.kl
        if kl.placed == "reward" and needs_of(kl.estimator).vocabulary:
            kl_BT = exact_kl_in_parts(self._policy, self._reference, samples.batch, self._batching)
        else:
            kl_BT = torch.zeros_like(logp_BT) if kl.placed != "reward" else kl.estimator(logp_BT, ref_logp_BT)
        return zero_outside(kl_BT, samples.batch.response_mask_BT)

    def _own_logps(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """[B, T] nats of the policy that sampled, at the sampling temperature and untempered.

        An exact sampler's own are the former; another's are not what the update's ratio may start from.
        """
        sampler = self._collector.sampler
        temperature, old_logp_BT = sampler.sampling.temperature, samples.sampler_logp_BT
        if not sampler.engine.exact:
            old_logp_BT = logp_in_parts(self._policy, samples.batch, self._batching, temperature)
        if temperature == 1.0:
            return old_logp_BT, old_logp_BT
        return old_logp_BT, logp_in_parts(self._policy, samples.batch, self._batching, 1.0)

    def _corrected(self, adv_BT: Tensor, old_logp_BT: Tensor, samples: Samples) -> tuple[Tensor, dict[str, float]]:
        """[B, T] advantages times the importance weights of samples that another sampler drew; how far off it is.

        Every policy loss is linear in the advantage's size, so the weight that multiplies one multiplies the other;
        the KL term and a critic's targets keep their own.
        """
        if self._collector.sampler.engine.exact:
            return adv_BT, {}
        drawn = (old_logp_BT, samples.sampler_logp_BT, samples.batch.response_mask_BT)
        found = mismatch(*drawn)
        if self._correction is None:
            return adv_BT, found
        ratio_BT = LEVELS[self._correction.level](*drawn)
        weight_BT = MODES[self._correction.mode](ratio_BT, cap=self._correction.cap)
        mask_BT = samples.batch.response_mask_BT
        found["is/correction_mean"] = masked_mean(weight_BT, mask_BT).item()
        found["is/correction_cut_frac"] = masked_mean((ratio_BT > self._correction.cap).float(), mask_BT).item()
        return adv_BT * weight_BT, found

    def _gate(self, samples: Samples, ref_logp_BT: Tensor) -> None:
        """Before anything is learned, policy = reference and sampler = trainer, or nothing later means anything.

        Raises: GateError.
        """
        temperature = self._collector.sampler.sampling.temperature
        tempered_BT = logp_in_parts(self._policy, samples.batch, self._batching, temperature)
        plain_BT = tempered_BT
        if temperature != 1.0:
            plain_BT = logp_in_parts(self._policy, samples.batch, self._batching, 1.0)
        tolerance = GATE_TOLERANCE[self._batching.dtype]
        gap_BT = (tempered_BT - samples.sampler_logp_BT).abs()
        if self._collector.sampler.engine.exact:
            sampler_gap, sampler_tolerance = gap_BT.max().item(), tolerance
        else:
            sampler_gap = masked_mean(gap_BT, samples.batch.response_mask_BT).item()
            sampler_tolerance = MEAN_TOLERANCE[self._batching.dtype]
        for what, gap, limit in (
            ("policy and reference", (plain_BT - ref_logp_BT).abs().max().item(), tolerance),
            ("trainer and sampler", sampler_gap, sampler_tolerance),
        ):
            if not gap <= limit:
                raise GateError(
                    f"step 0: log-probs of {what} differ by {gap:.2g} nats (limit {limit}). They must be the same "
                    "model: check that both come from models/sft, in the same precision."
                )
