"""Online RL: sample, score, estimate advantages, improve. One trainer for every policy-gradient algorithm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlpipe.algos.objective import estimate
from rlpipe.algos.plan import RLPlan
from rlpipe.checkpoint.store import Rows, Stateful, Store
from rlpipe.errors import GateError
from rlpipe.models.learner import Reference
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
    ) -> None:
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
        collected = self._collector.collect(step)
        self._budget.spend(collected.tokens)
        phases.mark("rollout")
        fresh, metrics = self._experience(collected, step)
        phases.mark("forward")
        learned_from = [fresh] if self._replay is None else self._replay.learn_from(fresh, step)
        metrics |= self._improver.improve(learned_from, step, self._coefficient.value)
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
        logp_BT = self._untempered(samples)
        if step == 0:
            self._gate(samples, ref_logp_BT)
        reward_BT, seen, metrics = self._rewards(collected)
        value_BT = self._critic.values(batch)
        kl_BT = self._penalty(samples, logp_BT, ref_logp_BT)
        reward_BT, advantage = estimate(
            plan.algo, plan.numbers, self._coefficient.value, reward_BT, kl_BT, value_BT, samples.group_B, mask_BT
        )
        self._critic.follow(collected.score_B)
        metrics |= {
            "reward/total_mean": reward_BT.sum(1).mean().item(),
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
        metrics |= self._watch.take(step, seen, metrics["kl/ref_seq_sum"])
        born = self._improver.learner.done
        return Experience(
            batch, samples.group_B, samples.sampler_logp_BT, ref_logp_BT, value_BT,
            advantage.adv_BT, advantage.return_BT, born,
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

    def _untempered(self, samples: Samples) -> Tensor:
        """[B, T] nats of the sampling policy itself; the sampler's own log-probs are those at temperature 1."""
        if self._collector.sampler.sampling.temperature == 1.0:
            return samples.sampler_logp_BT
        return logp_in_parts(self._policy, samples.batch, self._batching, 1.0)

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
        for what, gap_BT in (
            ("policy and reference", plain_BT - ref_logp_BT),
            ("trainer and sampler", tempered_BT - samples.sampler_logp_BT),
        ):
            gap = gap_BT.abs().max().item()
            if not gap <= tolerance:
                raise GateError(
                    f"step 0: log-probs of {what} differ by {gap:.2g} nats (limit {tolerance}). They must be the same "
                    "model: check that both come from models/sft, in the same precision."
                )
