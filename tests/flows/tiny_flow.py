"""The flow's body on the tiny project; as a program, in a process that a test can stop."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from flows import server
from flows.entry import heed_interrupts
from flows.post_training import bring_up_to_date, untracked


@flow(name="tiny", persist_result=False)
def tiny(root: str, slots: int = 2, grace: float = 20.0) -> State[None]:
    return bring_up_to_date(Path(root), slots=slots, tracked=untracked, grace=grace)


if __name__ == "__main__":
    heed_interrupts()
    with server.starting() as answered:
        answered()
        sys.exit(0 if tiny(sys.argv[1], grace=float(sys.argv[2]), return_state=True).is_completed() else 1)
