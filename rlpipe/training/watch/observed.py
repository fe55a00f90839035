"""What the watch sees of a measured step, and the few numbers that it remembers of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlpipe.rewards.format import tricky
from rlpipe.rewards.repetition import repeated
from rlpipe.types import Completion, Scored, Task


@dataclass(frozen=True)
class Seen:
    """The policy's own samples of a step, row by row, before anything was chosen among them.

    `trained` are their scores by the reward that is trained on, None where there is no such reward; `heldout` those
    by the reward that is not.
    """

    tasks: Sequence[Task]
    completions: Sequence[Completion]
    texts: Sequence[str]
    trained: Sequence[Scored] | None
    heldout: Sequence[Scored]

    def with_process(self, scores: Sequence[float], process: Sequence[float]) -> Seen:
        """The same, trained on the whole responses' scores and their process rewards, two components by sample.

        Both are of the samples that the step learns from, which are a selection where prompts are resampled.
        """
        parts = [{"score": score, "process_reward_model": own} for score, own in zip(scores, process, strict=True)]
        return replace(self, trained=[Scored(sum(part.values()), {}, "", part) for part in parts])


@dataclass(frozen=True)
class Spread:
    """Scores of one step: how many there are, their mean (0 of none), their summed squared distances to it."""

    count: int
    mean: float
    square: float


@dataclass(frozen=True)
class Observation:
    """One measured step.

    Attributes:
        kl: nats a response, to the reference.
        length: tokens a response.
        repetition: mean share of repeated n-grams of a response's tokens.
        format_tricks: share of responses with one.
        trained: None where there is no reward to train on.
        shared: by component of that reward, the summed products of its part's and the total's distances to their
            means; over all components they add up to `trained.square`.
    """

    kl: float
    length: float
    repetition: float
    format_tricks: float
    heldout: Spread
    trained: Spread | None
    shared: Mapping[str, float]

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Observation:
        trained = state["trained"]
        spreads = {"heldout": Spread(**state["heldout"]), "trained": None if trained is None else Spread(**trained)}
        return cls(**{**state, **spreads})


def observe(seen: Seen, kl: float, ngram: int) -> Observation:
    """The numbers of a step; n-grams are of `ngram` tokens."""
    trained = None if seen.trained is None else [score for score in seen.trained if score.total is not None]
    return Observation(
        kl=kl,
        length=statistics.fmean(len(completion.ids) for completion in seen.completions),
        repetition=statistics.fmean(repeated(completion.ids, ngram) for completion in seen.completions),
        format_tricks=statistics.fmean(tricky(text) for text in seen.texts),
        heldout=_spread(_totals(seen.heldout)),
        trained=None if trained is None else _spread(_totals(trained)),
        shared={} if not trained else _shared(trained),
    )


def _totals(scored: Sequence[Scored]) -> list[float]:
    return [score.total for score in scored if score.total is not None]


def _spread(scores: Sequence[float]) -> Spread:
    if not scores:
        return Spread(0, 0.0, 0.0)
    mean = statistics.fmean(scores)
    return Spread(len(scores), mean, sum((score - mean) ** 2 for score in scores))


def _shared(scored: Sequence[Scored]) -> dict[str, float]:
    totals = _totals(scored)
    mean = statistics.fmean(totals)
    # A part's own mean drops out: the distances of the totals to theirs add up to 0.
    return {
        name: sum(score.parts[name] * (total - mean) for score, total in zip(scored, totals, strict=True))
        for name in scored[0].parts
    }
