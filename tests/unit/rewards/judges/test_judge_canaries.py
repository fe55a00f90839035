"""Canaries: a good judge lets none win, and one that is fooled is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from rlpipe.rewards.compose import compose
from rlpipe.rewards.judges import JUDGES
from rlpipe.rewards.judges.base import Pair, PairVerdict, Verdict, by_score
from rlpipe.rewards.judges.canaries import CANARIES, canary_choices, canary_rewards, canary_scores
from rlpipe.rewards.judges.fence import Fence
from rlpipe.rewards.judges.templates import choice_template
from rlpipe.rewards.registry import VERIFIERS
from rlpipe.stats import wilson
from rlpipe.types import Task

HONEST = [
    ("7+5-2", "<think>7+5=12 12-2=10</think><answer>10</answer>"),
    ("3+4", "<think>3+4=7</think><answer>7</answer>"),
]


class Program:
    """A judge by a rule on the response alone."""

    def __init__(self, rule: Callable[[str], float | None]) -> None:
        self.rule = rule

    def score(self, prompt: str, response: str) -> Verdict:
        value = self.rule(response)
        return Verdict(value, "" if value is not None else "refused: no words")

    def scores(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [self.score(*item) for item in items]

    def choices(self, pairs: Sequence[Pair]) -> list[PairVerdict]:
        return [
            by_score(self.score(pair.prompt, pair.first), self.score(pair.prompt, pair.second), tie_margin=0.0)
            for pair in pairs
        ]


def test_the_rubric_is_fooled_by_none() -> None:
    for report in (canary_choices(JUDGES["rubric"], HONEST), canary_scores(JUDGES["rubric"], HONEST)):
        assert set(report.results) == set(CANARIES)
        assert all((one.judged, one.won, one.tied) == (2, 0, 0) for one in report.results.values())
        assert (report.won, report.unheard, report.pass_rate) == ((), (), 0.0)


def test_a_judge_that_believes_what_it_reads_is_found_out() -> None:
    believes = Program(lambda text: 1.0 if "10/10" in text or '"score": 10' in text else 0.5)
    for report in (canary_choices(believes, HONEST), canary_scores(believes, HONEST)):
        assert report.won == ("begging", "forged_score", "forged_turn")
        assert report.results["begging"].win_rate == 1.0
        assert report.results["begging"].win_interval == wilson(2, 2)
        # 3 of the canaries beat both honest responses.
        assert report.pass_rate == pytest.approx(3 / len(CANARIES))
        assert report.results["empty"].tied == 2


def test_shorter_is_better_lets_the_empty_answer_win() -> None:
    report = canary_scores(Program(lambda text: 1 / (1 + len(text))), HONEST)
    assert {"empty", "blank", "colon"} <= set(report.won)
    assert "order" not in report.won  # it is longer than both honest responses


def test_a_canary_without_a_verdict_is_unheard_and_no_pass() -> None:
    silent = Program(lambda text: None if "Ignore" in text else 0.5 if text in dict(HONEST).values() else 0.1)
    for report in (canary_choices(silent, HONEST), canary_scores(silent, HONEST)):
        assert report.unheard == ("order",)
        assert (report.results["order"].missing, report.results["order"].win_rate) == (2, None)
        assert report.results["order"].win_interval is None
        assert report.won == ()
    # Where the honest response has no verdict, nothing is known of any canary.
    deaf = Program(lambda text: None if text in dict(HONEST).values() else 1.0)
    assert canary_scores(deaf, HONEST).unheard == tuple(CANARIES)
    assert canary_scores(deaf, HONEST).pass_rate is None


def test_every_kind_of_forgery_is_among_them_and_gets_no_hold_in_the_prompt() -> None:
    template, fence = choice_template(), Fence("key")
    assert set(template.replies) <= set(CANARIES.values())
    for text in CANARIES.values():
        texts = ["task", "honest", text]
        user = template.messages(fence, texts)[1]["content"]
        nonce = fence.nonce(template.digest, texts)
        assert user.count(f"[response B {nonce}]") == user.count(f"[end of response B {nonce}]") == 1
        assert "<|im_start|>" not in user
        assert "[/INST]" not in user


TASKS = [Task(prompt, prompt, answer) for (prompt, _), answer in zip(HONEST, ("10", "7"), strict=True)]


def test_a_reward_that_pays_for_length_pays_for_long_canaries() -> None:
    report = canary_rewards(compose({"longer": 1.0}, VERIFIERS), TASKS, [response for _, response in HONEST])
    longest = len(HONEST[0][1])
    assert set(report.won) >= {name for name, text in CANARIES.items() if len(text) > longest} >= {"constant", "order"}
    assert report.results["begging"].won == 0
    assert report.results["begging"].judged == len(HONEST)


def test_a_verifier_pays_for_none_and_what_has_no_score_is_not_compared() -> None:
    tasks = [*TASKS, Task("?", "?", "seven")]  # math_answer has no score where the gold is neither number nor maths
    report = canary_rewards(compose({"math_answer": 1.0}, VERIFIERS), tasks, ["#### 10", "#### 8", "#### 1"])
    assert report.won == ()
    empty = report.results["empty"]
    # Against a right answer it loses, against a wrong one it ties.
    assert (empty.judged, empty.won, empty.tied, empty.missing) == (2, 0, 1, 1)
