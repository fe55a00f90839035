"""Read what the pipeline measured, and compare each policy with SFT."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlpipe import lineage
from rlpipe.config import Params
from rlpipe.config.schema import Pairs, RewardPart
from rlpipe.dataio.files import read_rows
from rlpipe.errors import DataError
from rlpipe.stages.base import Stage
from rlpipe.stages.reporting.constitutional import Constitutional, constitutional
from rlpipe.stages.reporting.watched import WatchPage, watch_page

BASE = "sft"
KL, GOLD, TRAINED_ON = "kl/ref_seq_sum", "reward/gold_mean", "reward/score_mean"
PALETTE = 7  # places in the palette; 0 is SFT's, the others start again after the last
# No inputs of the report, and so not given to this stage in dvc.yaml: how and where stages ran, and sections that
# could be written but were not.
_NOT_SHOWN = {"runtime", "tracking", "judge_calls", "recipe"}

Verdict = Literal["above", "overlaps", "below", ""]


@dataclass(frozen=True)
class Sample:
    """One row of data/samples/<name>.jsonl."""

    id: str
    prompt: str
    answer: str
    completion: str
    score: float


@dataclass(frozen=True)
class Model:
    """One evaluated model. `colour` is its place in the palette, the same in every picture and table.

    `verdict`: where its 95% interval lies to SFT's; empty for SFT itself. `gained`: tasks it solves and SFT
    does not; `lost`: the other way round.
    """

    name: str
    algorithm: str
    colour: int
    measured: Mapping[str, float]
    verdict: Verdict
    gained: int
    lost: int

    @property
    def pass_at_1(self) -> float:
        return self.measured["pass_at_1"]


@dataclass(frozen=True)
class Curve:
    """One policy's measured steps; `gold` is the held-out reward.

    `reward` says what it is trained on, empty for an offline algorithm.
    """

    name: str
    colour: int
    reward: str
    kl: tuple[float, ...]
    gold: tuple[float, ...]
    trained_on: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What one model wrote for a task."""

    name: str
    colour: int
    completion: str
    right: bool


@dataclass(frozen=True)
class Exhibit:
    """One held-out task with every model's answer to it."""

    id: str
    prompt: str
    answer: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class RewardModel:
    """One reward model: its set of pairs, and what it ranks rightly of those held out."""

    name: str
    learns_from: str
    measured: Mapping[str, Any]


@dataclass(frozen=True)
class Judge:
    """The judge. `measured` says whether one was trained here, and how it agrees with `labels`, the verifier."""

    kind: str
    labels: str
    measured: Mapping[str, Any]

    @property
    def alarms(self) -> tuple[str, ...]:
        """Canaries that won at least once."""
        return _won_canaries(self.measured, "")


@dataclass(frozen=True)
class PairSet:
    """One set of preference pairs, who labelled it, and its counts."""

    name: str
    source: str
    labelled_by: str
    measured: Mapping[str, float]

    @property
    def counts(self) -> dict[str, float]:
        """Rows and tokens, by what they count."""
        return _under("data/", self.measured)

    @property
    def judged(self) -> dict[str, float]:
        """What the judge is worth on these pairs; empty where no judge compared two responses."""
        judged = _under("judge/", self.measured)
        return judged if "agreement" in judged else {}

    @property
    def alarms(self) -> tuple[str, ...]:
        """Canaries that won at least once."""
        return _won_canaries(self.measured, "judge/")


@dataclass(frozen=True)
class Findings:
    """All that the report says. A function of the stage's inputs alone: no clock, run, host or commit."""

    models: tuple[Model, ...]
    curves: tuple[Curve, ...]
    reward_models: tuple[RewardModel, ...]
    judge: Judge
    prepared: Mapping[str, float]
    pairs: tuple[PairSet, ...]
    constitution: Constitutional | None
    exhibits: tuple[Exhibit, ...]
    hashes: Mapping[str, str]
    parameters: Mapping[str, str]
    task: str
    watch: WatchPage

    @property
    def base(self) -> Model:
        return self.models[0]

    @property
    def best(self) -> Model:
        """Of the trained policies, the one with the highest accuracy; SFT where it is alone."""
        return max(self.models[1:] or self.models, key=lambda model: model.pass_at_1)


def find(stage: Stage) -> Findings:
    """Raises: DataError if an input is missing."""
    params = stage.params
    colours = {BASE: 0} | {name: 1 + place % (PALETTE - 1) for place, name in enumerate(params.policy)}
    names = [BASE, *(name for name in params.evaluate.models if name != BASE)]
    samples = {name: read_rows(stage.path(f"data/samples/{name}.jsonl"), Sample) for name in names}
    solved = {name: _solved(rows, params.evaluate.pass_threshold) for name, rows in samples.items()}
    return Findings(
        models=_models(stage, names, colours, solved),
        curves=tuple(_curve(stage, name, colours[name]) for name in params.policy),
        reward_models=tuple(
            RewardModel(name, scorer.learns_from, _numbers(stage.path(f"metrics/reward_model/{name}.json")))
            for name, scorer in params.reward_model.items()
        ),
        judge=Judge(params.judge.kind, params.judge_model.labels, _numbers(stage.path("metrics/judge.json"))),
        prepared=_numbers(stage.path("metrics/prepare.json")),
        pairs=tuple(
            PairSet(name, pairs.source, _labelled_by(pairs), _numbers(stage.path(f"metrics/pairs/{name}.json")))
            for name, pairs in params.pairs.items()
        ),
        constitution=(
            None
            if params.constitution.source == "none"
            else constitutional(stage, _numbers(stage.path("metrics/constitution.json")))
        ),
        exhibits=tuple(_exhibits(samples, solved, colours, params.report.samples)),
        hashes={path: lineage.digest(stage.path(path)) for path in _inputs(params)},
        parameters=_parameters(params),
        task=params.evaluate.reward,
        watch=watch_page(stage, colours, _in_words(params.watch.heldout)),
    )


def _inputs(params: Params) -> list[str]:
    """The data that DVC versions and everything else was made from."""
    return ["data/prepared", *(f"data/pairs/{name}" for name in params.pairs)]


def verdict(low: float, high: float, base_low: float, base_high: float) -> Verdict:
    """Where an interval lies to the base's: wholly above, wholly below, or not disjoint."""
    if low > base_high:
        return "above"
    return "below" if high < base_low else "overlaps"


def _models(
    stage: Stage, names: Sequence[str], colours: Mapping[str, int], solved: Mapping[str, set[str]]
) -> tuple[Model, ...]:
    measured = {name: _numbers(stage.path(f"metrics/evaluate/{name}.json")) for name in names}
    base = measured[BASE]
    return tuple(
        Model(
            name=name,
            algorithm=BASE if name == BASE else stage.params.policy[name].algorithm,
            colour=colours[name],
            measured=own,
            verdict="" if name == BASE else verdict(own["ci_low"], own["ci_high"], base["ci_low"], base["ci_high"]),
            gained=len(solved[name] - solved[BASE]),
            lost=len(solved[BASE] - solved[name]),
        )
        for name, own in measured.items()
    )


def _curve(stage: Stage, name: str, colour: int) -> Curve:
    rows = _measured_rows(stage.path(f"plots/policy/{name}.csv"))
    written: Mapping[str, Any] = stage.params.policy[name].settings.get("reward", {})
    return Curve(
        name=name,
        colour=colour,
        reward=_in_words({part: RewardPart.model_validate(value) for part, value in written.items()}),
        kl=tuple(row[KL] for row in rows),
        gold=tuple(row[GOLD] for row in rows),
        trained_on=tuple(row[TRAINED_ON] for row in rows),
    )


def _in_words(parts: Mapping[str, RewardPart]) -> str:
    """A composed reward as a sum."""
    weights = {name: part.weight for name, part in parts.items()}
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items())


def _measured_rows(path: Path) -> list[dict[str, float]]:
    """The steps at which reward and KL were both measured; an offline algorithm measures only some."""
    if not path.exists():
        raise DataError(f"{path}: no such file. Run the stage that writes it: `dvc repro` does.")
    wanted = (KL, GOLD, TRAINED_ON)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(row[name]) for name in wanted} for row in rows if all(row.get(name) for name in wanted)]


def _labelled_by(pairs: Pairs) -> str:
    if pairs.source == "none":
        return "nobody"
    if pairs.source == "dataset":
        return "whoever made the data"
    return "the judge, two by two" if pairs.reward is None else _in_words(pairs.reward)


def _won_canaries(measured: Mapping[str, float], section: str) -> tuple[str, ...]:
    return tuple(name for name, rate in _under(f"{section}canary/", measured).items() if rate > 0)


def _under(prefix: str, numbers: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}


def _solved(rows: Iterable[Sample], threshold: float) -> set[str]:
    return {row.id for row in rows if row.score >= threshold}


def _exhibits(
    samples: Mapping[str, Sequence[Sample]],
    solved: Mapping[str, set[str]],
    colours: Mapping[str, int],
    count: int,
) -> Iterable[Exhibit]:
    """The first tasks of the held-out set, whatever became of them: nothing is picked by its outcome."""
    by_id = {name: {row.id: row for row in rows} for name, rows in samples.items()}
    for task in samples[BASE][:count]:
        answers = tuple(
            Answer(name, colours[name], rows[task.id].completion, task.id in solved[name])
            for name, rows in by_id.items()
        )
        yield Exhibit(task.id, task.prompt, task.answer, answers)


def _parameters(params: Params) -> dict[str, str]:
    shown = {name: value for name, value in params.model_dump().items() if name not in _NOT_SHOWN}
    return lineage.flattened(shown)


def _numbers(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(f"{path}: no such file. Run the stage that writes it: `dvc repro` does.")
    numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return numbers
