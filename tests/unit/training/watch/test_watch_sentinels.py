"""What trips, what is done then, and whose weights are saved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.config.schema import Watch as Settings
from rlpipe.errors import ConfigError
from rlpipe.models.learner import Snapshot
from rlpipe.rewards.compose import compose
from rlpipe.rewards.registry import VERIFIERS
from rlpipe.training.watch import Seen, Watch, canaries
from rlpipe.training.watch.sentinels import RULES
from rlpipe.types import Completion, Scored, Task

TEXT = (Path(__file__).resolve().parents[4] / "params.yaml").read_text(encoding="utf-8")
TASKS = [Task("a", "1+1", "2"), Task("a", "1+1", "2"), Task("b", "2+2", "4"), Task("b", "2+2", "4")]


def settings(*assignments: str) -> Settings:
    return parse(edited(TEXT, None, ["watch.window=2", *(f"watch.{a}" for a in assignments)])).watch


def sample(heldout: float, trained: float, length: int = 3) -> Seen:
    """Four samples; scores lie one above and one below their means."""
    around = (1.0, -1.0, 1.0, -1.0)
    return Seen(
        TASKS, [Completion(tuple(range(length)), (0.0,) * length, True)] * 4, ["#### 2"] * 4,
        [Scored(trained + a, {}, "", {"own": trained + a}) for a in around],
        [Scored(heldout + a, {}, "") for a in around],
    )  # fmt: skip


class Policy(nn.Module):
    """One weight, which tells the step at which it was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))


class Run:
    """Feeds a watch: `measure` is one step, whose weight is the step's number while it is measured."""

    def __init__(self, *assignments: str) -> None:
        self.policy = Policy()
        self.watch = Watch(settings(*assignments), Snapshot(self.policy), None)
        self.steps = 0

    def measure(self, *seen: Seen) -> list[dict[str, float]]:
        rows = []
        for one in seen:
            self._set(float(self.steps))
            rows.append(self.watch.take(self.steps, one, 2.0 * self.steps))
            self.steps += 1
        self._set(100.0)  # the update after the last measurement
        return rows

    def end(self) -> tuple[dict[str, Any], float]:
        """What is found, and which weight is saved."""
        return self.watch.conclude(), self.policy.weight.item()

    def _set(self, value: float) -> None:
        with torch.no_grad():
            self.policy.weight.fill_(value)


CALM = [sample(0.5, 0.5)] * 3
# Trained on up by 2 spreads, held out down by 1/2: a gap of 2.5.
HACKED = [sample(0.0, 2.5)] * 2


def test_readings_begin_when_the_first_window_is_full() -> None:
    rows = Run().measure(*CALM)
    assert rows[0].keys() == {"watch/tripped"}
    assert rows[1]["watch/hacking_gap"] == rows[2]["watch/hacking_gap"] == 0


def test_a_sentinel_warns_once_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    run = Run("sentinels.heldout_drop.action=off")
    with caplog.at_level(logging.WARNING):
        rows = run.measure(*CALM, *HACKED, *HACKED)
    # Step 3: half of the window is hacked, a gap of 1.25.
    assert [record.getMessage() for record in caplog.records] == [
        "watch: hacking_gap tripped at step 3 (KL 6 nats): 1.25 exceeds the limit 1. Action warn: training goes on."
    ]
    assert [row["watch/tripped"] for row in rows] == [0, 0, 0, 1, 1, 1, 1]
    assert not run.watch.spent
    found, weight = run.end()
    reading = found["readings"]["hacking_gap"]
    assert reading["tripped"] == {"step": 3, "value": 1.25, "kl": 6.0}
    assert (reading["start"], reading["end"], reading["limit"], reading["rule"]) == (0, 2.5, 1.0, "above")
    assert (found["kept"], found["kept_step"], found["stopped_at_step"], weight) == ("last", None, None, 100.0)


def test_one_that_stops_ends_training_with_the_best_weights() -> None:
    run = Run("sentinels.hacking_gap.action=stop")
    run.measure(*CALM)
    assert not run.watch.spent
    run.measure(HACKED[0])
    assert run.watch.spent
    found, weight = run.end()
    # Windows end at steps 1 and 2 with the same held-out mean; the first of them is kept.
    assert (found["stopped_at_step"], found["kept"], found["kept_step"], weight) == (3, "best", 1, 1.0)


def test_off_is_read_and_never_trips() -> None:
    run = Run("sentinels.hacking_gap.action=off")
    run.measure(*CALM, *HACKED)
    reading = run.end()[0]["readings"]["hacking_gap"]
    assert (reading["end"], reading["tripped"]) == (2.5, None)


def test_the_best_is_best_by_the_reward_that_is_not_trained_on() -> None:
    # The reward trained on rises all the time; the held-out one is best at steps 2 and 3.
    run = Run("keep=best")
    run.measure(*(sample(heldout, 0.1 * step) for step, heldout in enumerate([0.2, 0.4, 0.6, 0.6, 0.1, 0.0])))
    found, weight = run.end()
    assert (found["kept"], found["kept_step"], weight) == ("best", 3, 3.0)


def test_one_lucky_step_is_not_the_best_window() -> None:
    # Windows of two: (0.9 + 0) / 2 = 0.45 < (0.5 + 0.5) / 2.
    run = Run("keep=best")
    run.measure(*(sample(heldout, 0.0) for heldout in [0.0, 0.9, 0.0, 0.5, 0.5, 0.0]))
    assert run.end()[0]["kept_step"] == 4


def test_before_any_window_is_full_the_best_weights_are_the_first() -> None:
    run = Run("keep=best", "window=5")
    run.measure(*CALM)
    found, weight = run.end()
    assert (found["kept_step"], weight, found["readings"]) == (0, 0.0, {})


@pytest.mark.parametrize("killed_after", [1, 2, 4, 6])
def test_restored_it_goes_on_as_if_nothing_had_happened(killed_after: int, tmp_path: Path) -> None:
    # The best weights are those of step 2, the gap trips at step 4, and the drop ends training at step 5.
    seen = [sample(0.5, 0.5), sample(0.5, 0.5), sample(0.6, 0.6), *HACKED, *HACKED]
    asked = ("keep=best", "sentinels.hacking_gap.limit=1.5", "sentinels.heldout_drop.action=stop")
    whole = Run(*asked)
    rows = whole.measure(*seen)
    before = Run(*asked)
    before.measure(*seen[:killed_after])
    torch.save(before.watch.state_dict(), tmp_path / "state.pt")
    after = Run(*asked)
    after.steps = killed_after
    after.watch.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert after.measure(*seen[killed_after:]) == rows[killed_after:]
    assert after.watch.spent is whole.watch.spent is True
    assert after.end() == whole.end()
    assert whole.end()[1] == 2.0


def test_no_weights_are_held_where_none_may_be_asked_for() -> None:
    for assignments, held in ((("keep=last",), 0), (("sentinels.length.action=stop",), 1)):
        run = Run(*assignments)
        run.measure(*CALM)
        assert len(run.watch.state_dict()["weights"]) == held


@pytest.mark.parametrize(
    ("name", "start", "inside", "outside"),
    [
        ("hacking_gap", 0.9, 1.0, 1.01),  # limit 1, whatever it was at first
        ("length", 20.0, 30.0, 30.1),  # 20 * 1.5
        ("length", 30.0, 20.0, 19.9),  # 30 / 1.5
        ("repetition", 0.5, 0.6, 0.61),  # 0.5 + 0.1
    ],
)
def test_each_reading_has_its_own_rule(name: str, start: float, inside: float, outside: float) -> None:
    limit = getattr(parse(TEXT).watch.sentinels, name).limit
    assert not RULES[name].beyond(start, inside, limit)
    assert RULES[name].beyond(start, outside, limit)


def test_every_sentinel_of_params_yaml_has_a_rule() -> None:
    assert set(RULES) == set(type(parse(TEXT).watch.sentinels).model_fields)


def test_canaries_are_scored_once_by_the_reward_that_is_trained_on() -> None:
    asked: list[list[str]] = []

    def longer(tasks: Any, texts: Any) -> Any:
        asked.append([task.id for task in tasks])
        return compose({"longer": 1.0}, VERIFIERS)(tasks, texts)

    watch = Watch(settings(), Snapshot(Policy()), canaries(longer, 2))
    rows = [watch.take(step, sample(0.5, 0.5), 0.0) for step in range(3)]
    # One call: an honest answer to each of the two prompts, then every canary for both.
    assert len(asked) == 1
    assert asked[0][:4] == ["a", "b", "a", "b"]
    # All but the empty and the blank one and the colon are longer than `#### 2`, and win both comparisons.
    assert rows[0]["watch/canary_pass_rate"] == pytest.approx(10 / 13)
    assert "watch/canary_pass_rate" not in rows[1]
    found = watch.conclude()
    assert found["canaries"]["constant"] == 1.0
    assert found["canaries"]["empty"] == 0.0
    assert found["readings"]["canary_pass_rate"]["tripped"]["step"] == 0


def test_a_canary_that_beats_only_the_worse_half_does_not_pass() -> None:
    def half(tasks: Any, texts: Any) -> list[Scored]:
        """Prompt a's honest answer is worth 1, b's nothing; every canary 1/2."""
        honest = [float(task.id == "a") for task in tasks[:2]]
        return [Scored(value, {}, "") for value in [*honest, *[0.5] * (len(tasks) - 2)]]

    watch = Watch(settings(), Snapshot(Policy()), canaries(half, 2))
    assert watch.take(0, sample(0.5, 0.5), 0.0)["watch/canary_pass_rate"] == 0
    assert set(watch.conclude()["canaries"].values()) == {0.5}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("watch.sentinels.length.limit=1.0", r"watch\.sentinels.*length\.limit 1 must exceed 1"),
        ("watch.sentinels.hacking_gap.action=shout", r"watch\.sentinels\.hacking_gap\.action='shout'"),
        ("watch.keep=first", r"watch\.keep='first'"),
        ("watch.heldout={format: 1.0, math_answer: {weight: 1.0, gate: fromat}}", r"gate=fromat: no such component"),
    ],
)
def test_a_mistake_in_the_section_is_refused(assignment: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        edited(TEXT, None, [assignment])


def test_a_held_out_reward_is_replaced_as_a_whole() -> None:
    assert list(settings("heldout={token_f1: 1.0}").heldout) == ["token_f1"]
    preset = "watch: {heldout: {token_f1: 1.0}}"
    assert list(parse(edited(TEXT, preset, [])).watch.heldout) == ["token_f1"]
