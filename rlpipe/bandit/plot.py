"""A run on the bandit as a picture: how fast it got there, and where."""

from __future__ import annotations

from pathlib import Path

import torch

from rlpipe.bandit.demo import Outcome
from rlpipe.bandit.table import total_variation

_REFERENCE, _TARGET, _LEARNED = "#6b7280", "#d55e00", "#0072b2"


def save(outcome: Outcome, path: Path) -> None:
    """Write the picture, in the format that the suffix names."""
    # Here and not above: everything else of this room works without matplotlib, whose import takes longer than a run.
    from matplotlib.figure import Figure

    learned_PK = outcome.policy_SPK[-1]
    prompts, arms = learned_PK.shape
    figure = Figure(figsize=(4.2 + 2.4 * prompts, 3.4), layout="constrained")
    first, *others = figure.subplots(1, 1 + prompts, width_ratios=[1.6] + [1.0] * prompts)
    towards_PK = learned_PK if outcome.target_PK is None else outcome.target_PK
    goal = "the last policy" if outcome.target_PK is None else "the target"
    first.plot(range(1, 1 + len(outcome.policy_SPK)), total_variation(outcome.policy_SPK, towards_PK).tolist(),
               color=_LEARNED, linewidth=1.4)  # fmt: skip
    first.set(xlabel="step", ylabel=f"total variation to {goal}", ylim=(0, None))
    first.set_title(outcome.plan.algo.name, loc="left", fontsize=10)
    bars = [("reference", outcome.bandit.ref_PK, _REFERENCE), ("learned", learned_PK, _LEARNED)]
    if outcome.target_PK is not None:
        bars.insert(1, ("target", outcome.target_PK, _TARGET))
    for prompt, axes in enumerate(others):
        for number, (label, policy_PK, colour) in enumerate(bars):
            where = torch.arange(arms) + 0.8 * (number + 0.5) / len(bars) - 0.4
            axes.bar(where.tolist(), policy_PK[prompt].exp().tolist(), 0.8 / len(bars), color=colour, label=label)
        axes.set_xticks(range(arms), [f"{a}\n{outcome.bandit.reward_PK[prompt, a]:.1f}" for a in range(arms)])
        axes.set(ylim=(0, 1), xlabel="arm, reward")
        axes.set_title(f"prompt {prompt}", loc="left", fontsize=10)
    others[-1].legend(frameon=False, fontsize=8)
    for axes in (first, *others):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
