"""Where the time of a GRPO step goes, rlpipe's and TRL's side by side: docs/images/step_profile.png.

    python -m benchmarks.profile

Group shapes, 15.7M parameters, float32; one step of each side, the other's tokens drawn again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks import ours, trl_now
from benchmarks.grpo import SIZE, shapes_of
from benchmarks.phases import PHASES, watched
from benchmarks.shapes import Groups, arguments
from benchmarks.texts import CHECKOUT

PICTURE = CHECKOUT / "docs/images/step_profile.png"


def measured(work: Groups, size: int) -> dict[str, dict[str, float]]:
    """Seconds by phase of one step of each side."""
    with watched() as spans:
        mine = ours.online("grpo", work, steps=2, lr=ours.STILL)
        peer = trl_now.grpo(work, mine.drawn[1:], lr=ours.STILL, size=size)
    return {
        "rlpipe": spans.within(mine.ended, mine.seconds),
        "TRL 1.16": spans.within(peer.ended, peer.seconds),
    }


def draw(profiles: Mapping[str, Mapping[str, float]], file: Path) -> None:
    """One bar a side, its phases one behind the other."""
    figure, axes = pyplot.subplots(figsize=(8, 2.4), layout="constrained")
    left = dict.fromkeys(profiles, 0.0)
    for phase in PHASES:
        widths = [profile[phase] for profile in profiles.values()]
        axes.barh(list(profiles), widths, left=list(left.values()), label=phase)
        left = {side: left[side] + profile[phase] for side, profile in profiles.items()}
    for side, seconds in left.items():
        axes.annotate(f" {seconds:.1f} s", (seconds, side), va="center")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("seconds of a GRPO step, group shapes, 15.7M parameters")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(PHASES), frameon=False)
    figure.savefig(file, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    arguments("Where a GRPO step's time goes.", pairs=1)
    with tempfile.TemporaryDirectory() as folder:
        profiles = measured(shapes_of("group", Path(folder)), SIZE["group"])
    for side, profile in profiles.items():
        print(side, ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in profile.items()))
    draw(profiles, PICTURE)


if __name__ == "__main__":
    main()
