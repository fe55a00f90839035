"""Preferences by the constitution: a judge that asks of each prompt's responses what one principle asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

from rlpipe.rewards.constitutional.principles import Principle, turn
from rlpipe.rewards.judges.base import Pair, PairVerdict, Verdict
from rlpipe.rewards.judges.journal import Judgment
from rlpipe.rewards.judges.model_judge import ModelJudge, Tally

Item = TypeVar("Item")
Said = TypeVar("Said")


class PrincipledJudge:
    """Each prompt has one principle, drawn by a hash, so that the scores of its responses can be compared.

    Args:
        judge_by: the judge that asks by a principle's own templates; all of them share a respondent and a journal.
        principles: at least one.
        seed: of the draw.
    """

    def __init__(self, judge_by: Callable[[Principle], ModelJudge], principles: Sequence[Principle], seed: int) -> None:
        self._judges: Mapping[str, ModelJudge] = {principle.name: judge_by(principle) for principle in principles}
        self._principles, self._seed = tuple(principles), seed

    @property
    def used(self) -> dict[str, Judgment]:
        """The judgments that its verdicts so far are made of, by key."""
        return {key: judgment for judge in self._judges.values() for key, judgment in judge.used.items()}

    @property
    def tally(self) -> Tally:
        """How its questions ended, over all principles."""
        tallies = [judge.tally for judge in self._judges.values()]
        assert len(fields(Tally)) == 7, "every field is added up below"
        return Tally(
            outcomes=sum((one.outcomes for one in tallies), Counter()),
            attempts=sum((one.attempts for one in tallies), Counter()),
            from_file=sum(one.from_file for one in tallies),
            prompt_tokens=sum(one.prompt_tokens for one in tallies),
            completion_tokens=sum(one.completion_tokens for one in tallies),
            called_prompt_tokens=sum(one.called_prompt_tokens for one in tallies),
            called_completion_tokens=sum(one.called_completion_tokens for one in tallies),
        )

    def principle(self, prompt: str) -> Principle:
        """The one that a prompt's responses are judged by."""
        return turn(self._principles, self._seed, prompt, 0)

    def score(self, prompt: str, response: str) -> Verdict:
        """One of `scores`."""
        return self.scores([(prompt, response)])[0]

    def scores(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Raises: ReplayError; JudgeDownError, with everything answered so far on file."""
        return self._each(items, (prompt for prompt, _ in items), lambda judge, some: judge.scores(some))

    def choices(self, pairs: Sequence[Pair]) -> list[PairVerdict]:
        """Raises: ReplayError; JudgeDownError, with everything answered so far on file."""
        return self._each(pairs, (pair.prompt for pair in pairs), lambda judge, some: judge.choices(some))

    def _each(
        self, items: Sequence[Item], prompts: Iterable[str], asked: Callable[[ModelJudge, list[Item]], list[Said]]
    ) -> list[Said]:
        """What each principle's judge says of its items, all of them asked together, back in the items' order."""
        names = [self.principle(prompt).name for prompt in prompts]
        said: dict[int, Said] = {}
        for name, judge in self._judges.items():
            places = [at for at, own in enumerate(names) if own == name]
            if places:
                said.update(zip(places, asked(judge, [items[at] for at in places]), strict=True))
        return [said[at] for at in range(len(items))]
