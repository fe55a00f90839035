"""Readings of the last window against the first, with the arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlpipe.training.watch import readings as formulas
from rlpipe.training.watch.observed import Observation, Spread
from rlpipe.training.watch.readings import Window, heldout_mean, shares

# Four samples a step: held out 0, 0, 1, 1 (mean 1/2, spread 1/2); trained on 1, 1, 3, 3 (mean 2, spread 1).
PLAIN = Observation(
    kl=0.0, length=20.0, repetition=0.1, format_tricks=0.0,
    heldout=Spread(4, 0.5, 1.0), trained=Spread(4, 2.0, 4.0), shared={"right": 3.0, "long": 1.0},
)  # fmt: skip
FIRST = [PLAIN, PLAIN]


def readings(first: Window, last: Window, best: float) -> dict[str, float]:
    return formulas.readings(first, last, best, heldout_parts={"right"})


def changed(**changes: object) -> list[Observation]:
    return [replace(PLAIN, **changes)] * 2


def test_nothing_changed_reads_nothing() -> None:
    found = readings(FIRST, FIRST, 0.5)
    for name in ("hacking_gap", "heldout_rise", "trained_rise", "heldout_drop", "dominance"):
        assert found[name] == 0, name
    assert (found["length"], found["repetition"], found["format_tricks"]) == (20.0, 0.1, 0.0)


def test_the_gap_is_between_rises_in_each_rewards_own_spreads() -> None:
    last = changed(heldout=Spread(4, 0.25, 0.75), trained=Spread(4, 5.0, 4.0))
    found = readings(FIRST, last, 0.5)
    assert found["trained_rise"] == pytest.approx(3.0)  # (5 - 2) / 1
    assert found["heldout_rise"] == pytest.approx(-0.5)  # (1/4 - 1/2) / (1/2)
    assert found["hacking_gap"] == pytest.approx(3.5)


def test_a_reward_in_other_units_has_the_same_gap() -> None:
    def in_cents(observations: list[Observation]) -> list[Observation]:
        scaled = [(o, o.trained) for o in observations]
        return [replace(o, trained=Spread(t.count, 100 * t.mean, 1e4 * t.square)) for o, t in scaled if t]

    last = changed(trained=Spread(4, 3.5, 2.0))
    plain, cents = readings(FIRST, last, 0.5), readings(in_cents(FIRST), in_cents(last), 0.5)
    assert cents["hacking_gap"] == pytest.approx(plain["hacking_gap"])


def test_the_drop_is_from_the_best_window() -> None:
    found = readings(FIRST, changed(heldout=Spread(4, 0.6, 1.0)), 0.8)
    assert found["heldout_drop"] == pytest.approx(0.4)  # (0.8 - 0.6) / (1/2)
    assert found["heldout_rise"] == pytest.approx(0.2)  # above its start all the same


def test_steps_with_fewer_scores_count_less() -> None:
    window = [replace(PLAIN, heldout=Spread(3, 1.0, 0.0)), replace(PLAIN, heldout=Spread(1, 0.0, 0.0))]
    assert heldout_mean(window) == pytest.approx(0.75)  # 3 of 4
    assert heldout_mean(changed(heldout=Spread(0, 0.0, 0.0))) is None


def test_shares_are_of_the_variance_and_add_up_to_one() -> None:
    assert shares(FIRST) == {"right": 0.75, "long": 0.25}  # 3 and 1 of 4
    assert shares(changed(shared={"right": 5.0, "long": -1.0})) == {"right": 1.25, "long": -0.25}


def test_dominance_is_the_largest_gain_of_a_component_that_is_not_held_out() -> None:
    found = readings(FIRST, changed(shared={"right": 0.4, "long": 3.6}), 0.5)
    assert found["dominance"] == pytest.approx(0.65)  # long: from 1/4 to 9/10
    assert found["long_share"] == pytest.approx(0.9)
    # Where `right` takes over, long lost its quarter.
    assert readings(FIRST, changed(shared={"right": 4.0, "long": 0.0}), 0.5)["dominance"] == pytest.approx(-0.25)


def test_what_has_no_meaning_is_left_out() -> None:
    without = [replace(o, trained=None, shared={}) for o in FIRST]
    assert readings(without, without, 0.5).keys() == {
        "length", "repetition", "format_tricks", "heldout_rise", "heldout_drop",
    }  # fmt: skip
    alone = changed(shared={"right": 4.0})
    assert "dominance" not in readings(alone, alone, 0.5)
    # Every sample failed at first: there is no spread to count a rise in.
    failed = changed(heldout=Spread(4, 0.0, 0.0))
    assert {"hacking_gap", "heldout_rise", "heldout_drop"}.isdisjoint(readings(failed, FIRST, 0.5))
    # No spread now is no obstacle.
    assert "hacking_gap" in readings(FIRST, failed, 0.5)
