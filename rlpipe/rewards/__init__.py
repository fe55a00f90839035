"""What a completion is worth: verifiers, judges, and their weighted sum. A missing score is never 0."""

from rlpipe.rewards.base import Component, Missing, Reward
from rlpipe.rewards.compose import compose, stopping
from rlpipe.rewards.judges import JUDGES
from rlpipe.rewards.registry import VERIFIERS, bind, judged, refuse, refuse_as_gold

__all__ = [
    "JUDGES",
    "VERIFIERS",
    "Component",
    "Missing",
    "Reward",
    "bind",
    "compose",
    "judged",
    "refuse",
    "refuse_as_gold",
    "stopping",
]
