"""How the KL's weight follows the KL: worked numbers, target 2 nats."""

import pytest

from rlpipe.ops.control import doubling, fixed, proportional, rising


@pytest.mark.parametrize("kl", [0.0, 2.0, 100.0])
def test_fixed_stays(kl):
    assert fixed(0.3, kl) == 0.3


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (2.0, 1.0),  # on target
        (2.2, 1 + 0.5 * 0.1),  # a tenth above: half of a tenth up
        (1.8, 1 - 0.5 * 0.1),
        (20.0, 1 + 0.5 * 0.2),  # nine times above: clipped to a fifth
        (0.0, 1 - 0.5 * 0.2),
    ],
)
def test_proportional_moves_by_the_relative_error_clipped_to_a_fifth(kl, factor):
    assert proportional(0.4, kl, kl_target=2.0, kl_gain=0.5) == pytest.approx(0.4 * factor)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(3.1, 2), (3.0, 1), (2.0, 1), (2.0 / 1.5, 1), (1.3, 0.5), (0.0, 0.5)],
)
def test_doubling_doubles_beyond_and_halves_below_one_and_a_half_times_the_target(kl, factor):
    assert doubling(0.4, kl, kl_target=2.0) == pytest.approx(0.4 * factor)


@pytest.mark.parametrize(("kl", "factor"), [(3.1, 2), (3.0, 1), (2.0, 1), (1.3, 1), (0.0, 1)])
def test_rising_doubles_likewise_and_never_falls(kl, factor):
    assert rising(0.4, kl, kl_target=2.0) == pytest.approx(0.4 * factor)
