"""The flow: every stage of `dvc.yaml`, in order, in parallel where the graph allows, as one flow run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import graph
from flows.entry import heed_interrupts
from flows.slots import Slots
from flows.walk import walk
from rlpipe import workspace
from rlpipe.config import Params, load
from rlpipe.errors import RlpipeError
from tasks.artifacts import publish
from tasks.process import Children
from tasks.stage import CANCELLED, FAILED, Outcome
from tasks.warm import warm

CHECKOUT = Path(__file__).resolve().parents[1]
_NAME = "post-training"

# What to add to the environment of every stage, and whom to tell of each that has ended.
Trace = tuple[Mapping[str, str], Callable[[Outcome], None]]
Tracked = Callable[[], AbstractContextManager[Trace]]


@flow(name=_NAME, flow_run_name="{run_name}", persist_result=False)
def pipeline(root: str, run_name: str) -> State[None]:
    """Bring the workspace `root` up to date."""
    return _follow_params(Path(root), run_name)


def _form_name() -> str:
    """The flow run's name, from the form's fields."""
    filled = flow_run.parameters
    return workspace.run_name(filled.get("preset"), filled.get("overrides") or [], filled.get("name"))


@flow(name=_NAME, flow_run_name=_form_name, persist_result=False)
def post_training(
    preset: str | None = None, overrides: list[str] | None = None, name: str | None = None
) -> State[None]:
    """Run the pipeline; what is left empty is as in params.yaml.

    Args:
        preset: a file of `presets/`, without its suffix.
        overrides: `key=value` each, such as `policy.grpo.kl_coef=0.1`.
        name: of the run's workspace in `runs/`; with any of the three the checkout itself stays as it is.
    """
    heed_interrupts()
    try:
        with workspace.chosen(CHECKOUT, preset, overrides or [], name) as (root, run_name):
            return _follow_params(root, run_name)
    except RlpipeError as error:
        return Failed(message=str(error))


def bring_up_to_date(
    root: Path, *, slots: Slots, children: Children, tracked: Tracked, targets: Sequence[str] = ()
) -> State[None]:
    """The body of the flow: DVC says what is stale, the walk runs it, DVC has the last word.

    Args:
        slots, children: shared with the other pipelines of the flow run, where there are any.
        tracked: opened only when something is stale: a run that changes nothing leaves no trace in MLflow.
        targets: as in `Graph.toward`; empty for every stage.
    """
    plan = graph.read(root)
    if targets:
        plan = plan.toward(targets)
    stale = _stale(root, plan)
    with (tracked if stale else untracked)() as (environ, on_finished):
        outcomes = walk(
            plan, stale, root=root, slots=slots, children=children, environ=environ, on_finished=on_finished
        )
    publish(root, outcomes.values(), plan.metrics)
    # Where nothing ran, nothing can have changed since DVC was asked.
    return conclusion(outcomes, _stale(root, plan) if stale else {})


def _stale(root: Path, plan: graph.Graph) -> dict[str, str]:
    """What DVC finds stale of the stages of `plan`."""
    return {address: reason for address, reason in graph.stale(root).items() if address in plan.upstream}


@contextmanager
def untracked() -> Iterator[Trace]:
    """Nothing is added to the stages' environment and nobody is told of them."""
    yield {}, lambda _: None


def _follow_params(root: Path, run_name: str) -> State[None]:
    params = load(root)
    return bring_up_to_date(
        root,
        slots=Slots(params.runtime.slots),
        children=Children(),
        tracked=partial(equipped, root, params, run_name, {}),
    )


@contextmanager
def equipped(root: Path, params: Params, run_name: str, tags: Mapping[str, str]) -> Iterator[Trace]:
    """What the stages find through the environment: their runs' parent in MLflow, and a process that has their
    libraries.
    """
    from rlpipe.tracking import pipeline_run  # mlflow takes seconds to import

    tags = {"prefect.flow_run_id": str(flow_run.id), **tags}
    with warm(root) as offered, pipeline_run(root, params, name=run_name, tags=tags) as parent:
        yield (
            {**parent.environ, **offered},
            lambda outcome: parent.stage_finished(outcome.address, outcome.state, outcome.seconds),
        )


def conclusion(outcomes: Mapping[str, Outcome], stale: Mapping[str, str]) -> State[None]:
    """The flow's final state: Completed when no stage failed and DVC agrees that nothing is `stale`."""
    states = Counter(outcome.state for outcome in outcomes.values())
    summary = ", ".join(f"{count} {state}" for state, count in states.items())
    failed = [outcome for outcome in outcomes.values() if outcome.state == FAILED]
    if failed:
        errors = "\n\n".join(f"{outcome.address}: {outcome.error}" for outcome in failed)
        return Failed(message=f"{summary}\n\n{errors}")
    if states[CANCELLED]:
        return Failed(message=f"{summary}: the run was stopped. Run again to go on.")
    if stale:
        listed = "\n".join(f"{address}: {reason}" for address, reason in stale.items())
        return Failed(
            message=f"{summary}, but `dvc status` is not clean: a stage changed files of another, or someone "
            f"changed files during the run. Run again.\n{listed}"
        )
    return Completed(message=summary)
