"""The flow's body on the tiny project; as a program, in a process that a test can stop."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import server
from flows.bakeoff import side_by_side
from flows.entry import heed_interrupts
from flows.post_training import bring_up_to_date, untracked
from flows.slots import Slots
from tasks.process import Children


@flow(name="tiny", persist_result=False)
def tiny(root: str, slots: int = 2, grace: float = 20.0) -> State[None]:
    return bring_up_to_date(Path(root), slots=Slots(slots), children=Children(grace), tracked=untracked)


@flow(name="tiny_set", persist_result=False)
def tiny_set(roots: list[str], slots: int = 2, targets: tuple[str, ...] = (), grace: float = 20.0) -> State[None]:
    def pipeline(root: str, slots: Slots, children: Children) -> State[None]:
        return bring_up_to_date(Path(root), slots=slots, children=children, tracked=untracked, targets=targets)

    states = side_by_side(
        {root: partial(pipeline, root) for root in roots}, slots=Slots(slots), children=Children(grace)
    )
    message = "\n".join(f"{root}: {state.message}" for root, state in states.items())
    return (Completed if all(state.is_completed() for state in states.values()) else Failed)(message=message)


if __name__ == "__main__":
    heed_interrupts()
    *projects, seconds = sys.argv[1:]
    with server.starting() as answered:
        answered()
        run = partial(tiny, projects[0]) if len(projects) == 1 else partial(tiny_set, projects)
        sys.exit(0 if run(grace=float(seconds), return_state=True).is_completed() else 1)
