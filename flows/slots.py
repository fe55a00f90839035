"""Stage slots: how many stages may run at once, over all the pipelines of a flow run."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Slots:
    """A number of slots that several walks share, each in a thread of its own."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: dict[Callable[[], None], None] = {}

    def take(self, wake: Callable[[], None]) -> bool:
        """Take a slot if one is free; if not, `wake` is called once, when one has become free.

        Whoever is woken asks again: another may have been faster. `wake` is called in any thread.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting[wake] = None
            return False

    def give_back(self) -> None:
        """Free a slot and wake everyone who waits, the longest waiting first."""
        with self._lock:
            self._free += 1
            waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()
