"""rlpipe's side: steps taken by the trainers that its stages use. Only this file knows how they are put together."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from benchmarks.gradients import Gradients, gradients_of
from benchmarks.pairs import now
from benchmarks.shapes import Groups, Ids, Pair, Row, numbers
from rlpipe.algos.plan import PreferencePlan, RLPlan, plan
from rlpipe.checkpoint.store import Store
from rlpipe.config import load
from rlpipe.config.schema import (
    Adapter,
    Optim,
    Policy,
    RewardModel,
    RewardPart,
    Rollout,
    Sentinel,
    Sentinels,
    Supervised,
    Watch,
)
from rlpipe.models.learner import Snapshot, learner, reference_of
from rlpipe.models.load import load_policy, new_critic, new_reward_model
from rlpipe.models.own import release
from rlpipe.rollout.engine import Engine, TransformersEngine
from rlpipe.training.batching import Batching
from rlpipe.training.collect import Collector
from rlpipe.training.critic import Critic, NoCritic, SeparateCritic
from rlpipe.training.encode import EncodedPairs, EncodedTasks
from rlpipe.training.improve import updates_of
from rlpipe.training.measure import Measure
from rlpipe.training.preference import PreferenceTrainer
from rlpipe.training.reward_model import train_reward_model
from rlpipe.training.rl import RLTrainer
from rlpipe.training.samples import Sampler
from rlpipe.training.sft import train_sft
from rlpipe.training.watch import Watch as Watching
from rlpipe.types import Completion, Request, Sampling, Scored, Task

# One step's completions: a prompt, what was drawn.
Drawn = list[tuple[Ids, Ids]]

SEED = 17
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Learning rates: for a check, one that moves the weights; for timing, one so small that they stay, so that every pair
# of a measurement is the same step.
MOVING, STILL = 1e-4, 1e-12
# Tokens of a micro-batch of the trainers on fixed rows: what was fastest, for rows and for pairs.
ROWS_TOKENS, PAIRS_TOKENS = 1024, 2048
KL_COEF = {"grpo": 0.04, "ppo": 0.05}
_NUMBERS = {
    "grpo": {"clip_low": 0.2, "clip_high": 0.2},
    # lam = 1: TRL pays the score one token later than we do, which makes no difference to undiscounted returns.
    "ppo": {"clip_low": 0.2, "clip_high": 0.2, "gamma": 1.0, "lam": 1.0, "value_coef": 0.1, "value_clip": 0.2},
}


@dataclass
class Took:
    """What was seen of some steps.

    Attributes:
        seconds: of the last step.
        ended: when that was, on `time.perf_counter`'s clock.
        gradients: of every optimizer step.
        drawn: every step's completions.
    """

    seconds: float
    ended: float
    gradients: list[Gradients]
    drawn: list[Drawn] = field(default_factory=list)


def reward(ids: Sequence[int]) -> float:
    """In [0, 1): a number that says nothing, and differs between completions."""
    return zlib.crc32(" ".join(map(str, ids)).encode()) / 2**32


def online(algorithm: str, work: Groups, *, steps: int, lr: float) -> Took:
    """Steps of GRPO or PPO from the weights in `work.folder`. The first of them also passes the step-0 gate."""
    batching = Batching(0, DEVICE, work.dtype, work.micro_tokens)
    chosen = _plan(algorithm, work, steps, lr)
    policy: Any = policy_of(work)
    engine = _Recording(TransformersEngine(policy, work.eos, DEVICE, work.completions, precision=batching.precision))
    tasks = [Task(str(i), "", "") for i in range(len(work.prompts))]
    sampler = Sampler(
        engine,
        numbers(policy.config.vocab_size, max(work.eos)),
        EncodedTasks(tasks, list(work.prompts), 0),
        Sampling(1.0, work.longest),
        batching,
        work.seed,
    )
    collector = Collector(sampler, engine.scores, engine.scores, chosen.budget, batching, work.seed)
    trainer = RLTrainer(
        chosen,
        policy,
        reference_of(policy),
        _critic(algorithm, work, chosen, batching),
        collector,
        None,
        _blind_watch(policy),
        batching,
        work.seed,
    )
    clock = _Clock()
    with gradients_of(policy) as gradients, _store() as store:
        trainer.train(store, clock)
    return Took(clock.last, clock.ended, gradients, engine.drawn)


def policy_of(work: Groups) -> nn.Module:
    """The model in `work.folder`, or a LoRA adapter on it whose random half is always the same."""
    model = load_policy(work.folder, DEVICE)
    torch.manual_seed(SEED)
    return learner(model, None if work.rank is None else Adapter(rank=work.rank, alpha=2 * work.rank, dropout=0.0))


def plain(model: Any) -> Any:
    """The model as transformers computes it: without what rlpipe's loader gave it."""
    for module in model.modules():
        release(module)
    return model


def sft(
    folder: Path,
    rows: Sequence[Row],
    *,
    steps: int,
    lr: float,
    micro_tokens: int = ROWS_TOKENS,
    dtype: str = "float32",
) -> Took:
    """Steps of supervised fine-tuning, each on all rows."""
    model, clock = load_policy(folder, DEVICE), _Clock()
    batching = Batching(0, DEVICE, dtype, micro_tokens)
    settings = Supervised(steps=steps, batch_size=len(rows), optim=_optim(lr))
    with gradients_of(model) as gradients, _store() as store:
        train_sft(model, list(rows), settings, batching, seed=SEED, store=store, recorder=clock)
    return Took(clock.last, clock.ended, gradients)


def reward_model(folder: Path, pairs: Sequence[Pair], *, steps: int, lr: float) -> Took:
    """Steps of a Bradley-Terry reward model, each on all pairs."""
    model, clock = scorer_of(folder), _Clock()
    settings = RewardModel(
        learns_from="", starts_from="", temperature=1.0, margin_coef=0.0, centring_coef=0.0,
        steps=steps, batch_size=len(pairs), optim=_optim(lr),
    )  # fmt: skip
    with gradients_of(model) as gradients, _store() as store:
        train_reward_model(model, _encoded(pairs), settings, _plain(), seed=SEED, store=store, recorder=clock)
    return Took(clock.last, clock.ended, gradients)


def scorer_of(folder: Path) -> nn.Module:
    """A reward model on the decoder in `folder`, with always the same new head."""
    torch.manual_seed(SEED)
    return new_reward_model(folder, DEVICE)


def dpo(folder: Path, pairs: Sequence[Pair], *, steps: int, lr: float) -> Took:
    """Steps of DPO, each on all pairs; the seconds hold the reference's log-probs, which are computed once."""
    policy, clock = load_policy(folder, DEVICE), _Clock()
    section = {
        "algorithm": "dpo", "starts_from": "", "learns_from": "data/pairs/rows", "steps": steps,
        "batch_size": len(pairs), "measure_every": steps, "measure_prompts": 1, "beta": 0.1, "label_smoothing": 0.0,
        "optim": _optim_section(lr),
    }  # fmt: skip
    chosen = cast(PreferencePlan, plan("dpo", Policy.model_validate(section), _rollout(1, 1)))
    reference = reference_of(policy)
    began = now()
    trainer = PreferenceTrainer(chosen, policy, reference, _encoded(pairs), _no_measure(policy), _plain())
    once = now() - began
    with gradients_of(policy) as gradients, _store() as store:
        trainer.train(SEED, store, clock)
    return Took(clock.last + once, clock.ended, gradients)


class _Clock:
    """A recorder that knows when each step ended; the first one's begin is its own."""

    def __init__(self) -> None:
        self._ends = [now()]

    def metrics(self, _: int, __: Mapping[str, float]) -> None:
        self._ends.append(now())

    @property
    def ended(self) -> float:
        """When the last step ended."""
        return self._ends[-1]

    @property
    def last(self) -> float:
        """Seconds of the last step."""
        return self._ends[-1] - self._ends[-2]


class _Recording:
    """An engine that remembers what it drew, and scores it by its tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.drawn = engine, []  # type: Engine, list[Drawn]
        self.exact = engine.exact

    def refresh(self) -> None:
        self._engine.refresh()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        completions = self._engine.generate(requests, sampling)
        self.drawn.append([(r.prompt_ids, c.ids) for r, c in zip(requests, completions, strict=True)])
        return completions

    def scores(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Scored]:
        """Of the completions drawn last."""
        assert len(tasks) == len(texts) == len(self.drawn[-1])
        totals = [reward(ids) for _, ids in self.drawn[-1]]
        return [Scored(total, {"number": total}, "", {"number": total}) for total in totals]


class _NoMeasure(Measure):
    """A trainer on fixed rows also measures samples now and then, which its peers do not."""

    def when_due(self, _: int, __: int) -> Mapping[str, float]:
        return {}


def _plan(algorithm: str, work: Groups, steps: int, lr: float) -> RLPlan:
    section = {
        "algorithm": algorithm, "starts_from": "", "learns_from": "data/prepared", "reward": {"number": 1.0},
        "steps": steps, "prompts_per_step": len(work.prompts), "group_size": work.group, "epochs": 1, "minibatches": 1,
        "optim": _optim_section(lr), "kl_coef": KL_COEF[algorithm],
        **_NUMBERS[algorithm],
    }  # fmt: skip
    return cast(RLPlan, plan(algorithm, Policy.model_validate(section), _rollout(work.longest, work.completions)))


def _critic(algorithm: str, work: Groups, chosen: RLPlan, batching: Batching) -> Critic:
    if algorithm != "ppo":
        return NoCritic(None)
    return SeparateCritic(new_critic(work.folder, DEVICE), chosen, updates_of(chosen), batching)


def _rollout(longest: int, rows: int) -> Rollout:
    """What params.yaml says, for completions of at most `longest` tokens, `rows` at once."""
    written = load(Path(__file__).parent.parent).rollout
    return written.model_copy(update={"max_new_tokens": longest, "batch_size": rows})


def _optim_section(lr: float) -> dict[str, Any]:
    # No clip: it would hide a difference of scale between the two sides' gradients.
    return {"lr": lr, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1e9}


def _optim(lr: float) -> Optim:
    return Optim.model_validate(_optim_section(lr))


def _plain() -> Batching:
    return Batching(0, DEVICE, "float32", PAIRS_TOKENS)


def _encoded(pairs: Sequence[Pair]) -> EncodedPairs:
    return EncodedPairs([chosen for chosen, _ in pairs], [rejected for _, rejected in pairs], [0.0] * len(pairs), 0)


def _blind_watch(policy: nn.Module) -> Watching:
    """A watch that looks at every step, as always, and never acts."""
    off = Sentinel(limit=2.0, action="off")
    settings = Watch(
        heldout={"number": RewardPart(weight=1.0)}, window=5, keep="last", repetition_ngram=8, canary_prompts=0,
        sentinels=Sentinels(**dict.fromkeys(Sentinels.model_fields, off)),
    )  # fmt: skip
    return Watching(settings, Snapshot(policy), None)


def _no_measure(policy: nn.Module) -> Measure:
    nothing: Any = None
    return _NoMeasure(policy, nothing, nothing, nothing, _blind_watch(policy), _plain(), every=1, prompts=1)


@contextmanager
def _store() -> Iterator[Store]:
    """Checkpoints that are never due."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "state", "benchmark", 10**9) as store:
        yield store
