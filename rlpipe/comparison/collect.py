"""Read what the pipelines of a bakeoff measured: one trial for each algorithm and seed that finished."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlpipe.config import Params, load
from rlpipe.errors import DataError
from rlpipe.tracking import Cost, costs

BASE = "sft"
_TOKENS, _REWARD, _KL = "length/tokens_drawn", "reward/gold_mean", "kl/ref_seq_sum"


@dataclass(frozen=True)
class Measured:
    """One step at which reward and KL were measured.

    Attributes:
        tokens: generated to learn from by the end of the step.
        reward: mean over samples, the held-out reward (`watch.heldout`).
        kl: nats a response, to the SFT policy.
    """

    tokens: float
    reward: float
    kl: float


@dataclass(frozen=True)
class Trial:
    """One algorithm with one seed.

    Attributes:
        accuracy: pass@1 on the held-out tasks.
        kl: nats a response to the SFT policy, on the same tasks.
        tokens: generated to learn from.
        cost: of the policy stage's steps.
    """

    algorithm: str
    seed: int
    accuracy: float
    kl: float
    tokens: float
    curve: tuple[Measured, ...]
    cost: Cost


@dataclass(frozen=True)
class Trials:
    """All that a bakeoff measured. `algorithms` in the order they were named, SFT first; `tasks` held out."""

    name: str
    algorithms: tuple[str, ...]
    seeds: tuple[int, ...]
    token_budget: int | None
    tasks: int
    trials: tuple[Trial, ...]

    def of(self, algorithm: str) -> list[Trial]:
        """The algorithm's trials, by seed."""
        return [trial for trial in self.trials if trial.algorithm == algorithm]


def collect(name: str, roots: Mapping[int, Path], finished: Mapping[int, Collection[str]]) -> Trials:
    """Read the workspaces.

    Args:
        roots: seed -> workspace.
        finished: seed -> the models that are evaluated, with all that is upstream of them up to date.
    Raises: DataError where a finished model lacks a number; TrackingError if the MLflow store does not open.
    """
    params = load(next(iter(roots.values())))
    trials = [trial for seed, root in roots.items() for trial in _of_seed(seed, root, finished[seed])]
    algorithms = (BASE, *params.policy)
    return Trials(
        name=name,
        algorithms=algorithms,
        seeds=tuple(roots),
        token_budget=params.recipe.online.get("token_budget"),
        tasks=params.evaluate.tasks,
        trials=tuple(sorted(trials, key=lambda trial: algorithms.index(trial.algorithm))),
    )


def _of_seed(seed: int, root: Path, finished: Collection[str]) -> list[Trial]:
    params = load(root)
    names = [name for name in params.policy if name in finished]
    tables = {name: _rows(root / f"plots/policy/{name}.csv") for name in names}
    cost = costs(root, params, {f"policy@{name}": len(rows) for name, rows in tables.items()})
    trials = [
        _trial(root, name, seed, _curve(root, params, name, rows), cost[f"policy@{name}"])
        for name, rows in tables.items()
    ]
    return [_trial(root, BASE, seed, (), Cost(None, None)), *trials] if BASE in finished else trials


def _trial(root: Path, name: str, seed: int, curve: tuple[Measured, ...], cost: Cost) -> Trial:
    path = root / f"metrics/evaluate/{name}.json"
    evaluated = _numbers(path)
    return Trial(
        algorithm=name,
        seed=seed,
        accuracy=_number(evaluated, "pass_at_1", path),
        kl=_number(evaluated, "kl_ref_seq", path),
        tokens=curve[-1].tokens if curve else 0.0,
        curve=curve,
        cost=cost,
    )


def _curve(root: Path, params: Params, name: str, rows: list[dict[str, str]]) -> tuple[Measured, ...]:
    """The measured steps; an algorithm that draws no samples of its policy measures only some."""
    path = root / f"plots/policy/{name}.csv"
    source = params.policy[name].learns_from
    spent = 0.0
    if (made_from := _pairs_behind(params, source)) is not None:
        pairs = root / f"metrics/pairs/{made_from}.json"
        spent = _number(_numbers(pairs), "data/tokens_drawn", pairs)
    measured = [row for row in rows if row.get(_REWARD) and row.get(_KL)]
    return tuple(
        Measured(
            tokens=spent + (0.0 if source.startswith("data/pairs/") else _number(row, _TOKENS, path)),
            reward=float(row[_REWARD]),
            kl=float(row[_KL]),
        )
        for row in measured
    )


def _pairs_behind(params: Params, source: str) -> str | None:
    """The set of pairs that a policy learns from, itself or through a reward model; None for neither.

    Its tokens were spent before the first step.
    """
    scorer = source.removeprefix("models/reward_model/")
    if scorer != source:
        source = params.reward_model[scorer].learns_from
    name = source.removeprefix("data/pairs/")
    return name if name != source else None


def _rows(path: Path) -> list[dict[str, str]]:
    _require(path)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _numbers(path: Path) -> dict[str, float]:
    _require(path)
    numbers: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return numbers


def _number(numbers: Mapping[str, float | str], name: str, path: Path) -> float:
    if numbers.get(name, "") == "":
        raise DataError(f"{path}: {name!r} is missing. Run the stage that writes it again: `dvc repro -f` does.")
    return float(numbers[name])


def _require(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file. Run the stage that writes it: `dvc repro` does.")
