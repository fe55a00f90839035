"""TRL 1.12's side: its PPO, the last that TRL had, in a process of its own.

TRL 1.12.0 lies alone in `.trl112/` (`make .trl112`), in front of the environment that everything else comes from:
torch, transformers and accelerate are the very same as on rlpipe's side. No gradient checkpointing, no saving, one
epoch, the rollout's forward passes on all completions at once. The score comes from the tokens, as on rlpipe's side: no
reward model runs on either.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import ours
from benchmarks.forced import force
from benchmarks.gradients import gradients_of
from benchmarks.ours import Drawn, Took
from benchmarks.pairs import from_here, now
from benchmarks.shapes import Groups, numbers
from benchmarks.texts import CHECKOUT

FOLDER = CHECKOUT / ".trl112"


class Peer:
    """A process with TRL 1.12, which takes a step when asked."""

    def __init__(self, work: Groups, size: int) -> None:
        _require()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, size, theirs, torch.get_num_threads()))
        self._process.start()
        theirs.close()

    def step(self, drawn: Drawn) -> Took:
        """One step from the work's weights. Raises: RuntimeError if the process died."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "gradients.pt"
            self._pipe.send((drawn, file))
            try:
                seconds, ended = self._pipe.recv()
            except EOFError:
                raise RuntimeError("the process with TRL 1.12 died: its error stands above") from None
            return Took(seconds, ended, torch.load(file, weights_only=True))

    def close(self) -> None:
        """End the process, if it has not ended by itself."""
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join()


def once(work: Groups, drawn: Drawn, size: int) -> None:
    """For a process of its own that measures memory."""
    _require()
    sys.path.insert(0, str(FOLDER))
    import trl.experimental.ppo  # noqa: F401

    from_here()
    ppo(work, drawn, lr=ours.STILL, size=size)


def ppo(work: Groups, drawn: Drawn, *, lr: float, size: int) -> Took:
    """One step of PPO on the given completions; `size` of them in a forward pass. TRL 1.12 must be in front."""
    import trl

    assert trl.__version__.startswith("1.12."), f"TRL {trl.__version__} has no PPO: {FOLDER.name} must be in front"
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from rlpipe.models.load import load_policy, new_critic

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.began, self.ended = 0.0, 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ended = now()

    policy = ours.plain(load_policy(work.folder, ours.DEVICE))
    vocabulary = int(policy.config.vocab_size)
    # It takes every padding token for padding, so that this one must be drawn nowhere.
    taken = work.eos.union(*(prompt + completion for prompt, completion in drawn))
    pad = next(token for token in range(vocabulary) if token not in taken)
    force(policy, [drawn], sorted(work.eos), pad=pad)
    settings = PPOConfig(
        output_dir=tempfile.gettempdir(),
        learning_rate=lr,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=work.completions // size,
        local_rollout_forward_batch_size=work.completions,
        total_episodes=work.completions,
        num_ppo_epochs=1,
        num_sample_generations=0,
        response_length=work.longest,
        temperature=1.0,
        kl_coef=ours.KL_COEF["ppo"],
        vf_coef=0.1,
        lam=1.0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=ours.DEVICE.type == "cpu",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = PPOTrainer(
        args=settings,
        processing_class=numbers(vocabulary, max(work.eos), pad=pad),
        model=policy,
        ref_model=ours.plain(load_policy(work.folder, ours.DEVICE)),
        reward_model=_Reward({(*prompt, *completion): ours.reward(completion) for prompt, completion in drawn}),
        train_dataset=Dataset.from_dict({"input_ids": [list(prompt) for prompt, _ in drawn]}),
        value_model=ours.plain(new_critic(work.folder, ours.DEVICE)),
        callbacks=[clock := Clock()],
    )
    with gradients_of(policy) as gradients:
        trainer.train()
    return Took(clock.ended - clock.began, clock.ended, gradients)


class _Reward(nn.Module):
    """Has the shape of a reward model and looks the score up: it stands at every position."""

    base_model_prefix = "body"

    def __init__(self, scores: dict[tuple[int, ...], float]) -> None:
        super().__init__()
        self.body, self.score = _Lookup(scores), nn.Identity()


class _Lookup(nn.Module):
    def __init__(self, scores: dict[tuple[int, ...], float]) -> None:
        super().__init__()
        self._scores = scores

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        rows = zip(input_ids, attention_mask.bool(), strict=True)
        score_B: Any = torch.tensor([self._scores[tuple(ids_L[real_L].tolist())] for ids_L, real_L in rows])
        score_B = score_B.to(input_ids.device)
        return BaseModelOutput(hidden_states=(score_B[:, None, None].expand(-1, input_ids.shape[1], 1),))


def _serve(work: Groups, size: int, pipe: Connection, threads: int) -> None:
    sys.path.insert(0, str(FOLDER))
    torch.set_num_threads(threads)
    while (asked := pipe.recv()) is not None:
        drawn, file = asked
        took = ppo(work, drawn, lr=ours.STILL, size=size)
        torch.save(took.gradients, file)
        pipe.send((took.seconds, took.ended))


def _require() -> None:
    if not (FOLDER / "trl").is_dir():
        raise FileNotFoundError(f"{FOLDER.name}: TRL 1.12.0 is not there. Run `make {FOLDER.name}` once.")
