"""What the watch reads off its observations: the last window against the first. Formulas: docs/watch.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence

from rlpipe.training.watch.observed import Observation, Spread

Window = Sequence[Observation]


def readings(
    first: Window, last: Window, best_heldout: float | None, heldout_parts: Collection[str]
) -> dict[str, float]:
    """Each reading that the run allows, by its name in docs/metrics.md behind `watch/`.

    Left out is what has no meaning: a gap without a reward that is trained on, a rise of a reward that scored all
    samples of each step of the first window alike (it has no spread to be counted in), dominance where no component
    of several is without a part in the held-out reward.

    Args:
        best_heldout: the highest mean of the held-out reward over any window so far, the last included.
        heldout_parts: the components of the held-out reward: one of them that takes over is what is wanted.
    """
    found = {
        "length": statistics.fmean(o.length for o in last),
        "repetition": statistics.fmean(o.repetition for o in last),
        "format_tricks": statistics.fmean(o.format_tricks for o in last),
    }
    unit, now = _spread(_heldout(first)), mean(_heldout(last))
    heldout_rise = _rise(_heldout(first), _heldout(last))
    trained_rise = _rise(_trained(first), _trained(last))
    if heldout_rise is not None:
        found["heldout_rise"] = heldout_rise
    if best_heldout is not None and now is not None and unit > 0:
        found["heldout_drop"] = (best_heldout - now) / unit
    if trained_rise is not None:
        found["trained_rise"] = trained_rise
    if heldout_rise is not None and trained_rise is not None:
        found["hacking_gap"] = trained_rise - heldout_rise
    return found | _dominance(first, last, heldout_parts)


def heldout_mean(window: Window) -> float | None:
    """Mean held-out reward over the window's samples; None where none has a score."""
    return mean(_heldout(window))


def mean(spreads: Sequence[Spread]) -> float | None:
    """Over all scores of several steps; None where there is none."""
    count = sum(s.count for s in spreads)
    return sum(s.count * s.mean for s in spreads) / count if count else None


def shares(window: Window) -> dict[str, float]:
    """Each component's share of the composed reward's variance within steps; they add up to 1.

        Σ (w_c s_c - mean) (total - mean) / Σ (total - mean)²

    Its weight, norm and clip are included; it is negative for a component that works against the total. Empty where
    there are fewer than two components, or no variance.
    """
    names = list(dict.fromkeys(name for o in window for name in o.shared))
    variance = sum(s.square for s in _trained(window))
    if len(names) < 2 or variance <= 0:
        return {}
    return {name: sum(o.shared.get(name, 0.0) for o in window) / variance for name in names}


def _dominance(first: Window, last: Window, heldout_parts: Collection[str]) -> dict[str, float]:
    before, now = shares(first), shares(last)
    found = {f"{name}_share": share for name, share in now.items()}
    gains = [share - before.get(name, 0.0) for name, share in now.items() if name not in heldout_parts]
    if before and gains:
        found["dominance"] = max(gains)
    return found


def _rise(first: Sequence[Spread], last: Sequence[Spread]) -> float | None:
    """By how many of the first window's spreads the mean rose."""
    unit, before, now = _spread(first), mean(first), mean(last)
    return None if before is None or now is None or unit == 0 else (now - before) / unit


def _spread(spreads: Sequence[Spread]) -> float:
    """Standard deviation of scores within steps; 0 where there is none."""
    count = sum(s.count for s in spreads)
    return math.sqrt(sum(s.square for s in spreads) / count) if count else 0.0


def _heldout(window: Window) -> list[Spread]:
    return [o.heldout for o in window]


def _trained(window: Window) -> list[Spread]:
    return [o.trained for o in window if o.trained is not None]
