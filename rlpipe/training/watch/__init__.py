"""Reward hacking watch: what is measured of a run (`observed`), read from it (`readings`), tripped (`sentinels`)."""

from rlpipe.training.watch.observed import Seen
from rlpipe.training.watch.watch import Watch, canaries

__all__ = ["Seen", "Watch", "canaries"]
