"""Bradley-Terry reward model: a scalar head that ranks the chosen response above the rejected one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rlpipe.checkpoint.store import Rows, Store
from rlpipe.config.schema import Supervised
from rlpipe.dataio.batches import batch_indices
from rlpipe.models.forward import sequence_scores
from rlpipe.ops.preference import bradley_terry
from rlpipe.training.batching import Batching, slices
from rlpipe.training.encode import EncodedPairs
from rlpipe.training.loop import Phases, Recorder, StepResult, run_steps
from rlpipe.training.step import Learner


def train_reward_model(
    model: nn.Module,
    pairs: EncodedPairs,
    settings: Supervised,
    batching: Batching,
    *,
    seed: int,
    store: Store,
    recorder: Recorder,
) -> Rows:
    """Minimise  -log sigmoid(s_chosen - s_rejected)  averaged over each step's pairs.

    Returns: one row a step with `reward_model/loss`, `reward_model/accuracy`, `reward_model/margin`.
    """
    learner = Learner(model, settings.optim, settings.steps)
    model.train()

    def one_step(step: int) -> StepResult:
        phases = Phases()
        index = batch_indices(len(pairs.chosen), settings.batch_size, step, seed)
        seen: dict[str, list[Tensor]] = {}
        tokens = 0

        def losses() -> Iterator[Tensor]:
            nonlocal tokens
            for part in slices(len(index), settings.micro_batch_size):
                chosen = [pairs.chosen[i] for i in index[part]]
                rejected = [pairs.rejected[i] for i in index[part]]
                tokens += sum(len(prompt) + len(response) for prompt, response in [*chosen, *rejected])
                # One forward for both sides: the pair meets the same padding.
                with batching.precision():
                    score_B = sequence_scores(model, batching.collate([*chosen, *rejected]))
                loss = bradley_terry(*score_B.chunk(2))
                for name, value_B in loss.metrics_B.items():
                    seen.setdefault(name, []).append(value_B)
                yield loss.loss_B.sum() / len(index)

        update = learner.update(losses())
        phases.mark("train")
        metrics = {name: torch.cat(values).mean().item() for name, values in seen.items()}
        metrics |= {
            "reward_model/loss": update["loss"],
            "policy/grad_norm": update["grad_norm"],
            "policy/lr": update["lr"],
        }
        return StepResult(metrics, tokens, phases.seconds)

    rows = run_steps(
        settings.steps,
        one_step,
        states={"learner": learner},
        store=store,
        recorder=recorder,
        seed=seed,
        shown={"reward_model/loss": "loss", "reward_model/accuracy": "acc"},
    )
    model.eval()
    return rows
