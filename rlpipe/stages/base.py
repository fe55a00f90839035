"""What every stage is handed: its name, the checked parameters, the paths, the tracker.

Nothing here computes: a stage's outputs are functions of its files and parameters alone, so this module,
`config` and `tracking` are no dependencies of any stage in `dvc.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlpipe.config import Params
from rlpipe.tracking import Tracker


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml` while it runs. `item` is the part after '@', empty for a plain stage."""

    name: str
    item: str
    root: Path
    params: Params
    tracker: Tracker

    @property
    def address(self) -> str:
        """The stage's name in DVC, such as `policy@grpo`."""
        return f"{self.name}@{self.item}" if self.item else self.name

    @property
    def scratch(self) -> Path:
        """Where resumable checkpoints live: outside the outputs, because DVC deletes those before a run."""
        return self.root / ".rlpipe" / "scratch" / self.address

    def path(self, relative: str) -> Path:
        """A path of `dvc.yaml`, inside this workspace."""
        return self.root / relative
