"""The flow of a bakeoff: a pipeline for each seed, all at once over one pool of slots, then the comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import graph
from flows.entry import BAKEOFF_SEEDS, BAKEOFF_THRESHOLD, heed_interrupts
from flows.post_training import CHECKOUT, bring_up_to_date, equipped
from flows.slots import Slots
from rlpipe import lineage, workspace
from rlpipe.config import Params, load
from rlpipe.errors import RlpipeError
from tasks.process import Children

_NAME = "bakeoff"
_EVALUATE = "evaluate"

# One pipeline, given the slots and the children that it shares with the others.
Pipeline = Callable[[Slots, Children], State[None]]


@flow(name=_NAME, flow_run_name="{name}", persist_result=False)
def compare(checkout: str, name: str, seeds: list[int], threshold: float) -> State[None]:
    """Bring the workspaces of the bakeoff `name` up to date, and compare."""
    roots = {seed: workspace.seed_root(Path(checkout), name, seed) for seed in seeds}
    return _compare(Path(checkout), name, roots, threshold)


def _form_name() -> str:
    """The flow run's name, from the form's fields."""
    filled = flow_run.parameters
    return workspace.bakeoff_name(filled.get("preset"), filled.get("overrides") or [], filled.get("name"))


@flow(name=_NAME, flow_run_name=_form_name, persist_result=False)
def bakeoff(
    algos: list[str] | None = None,
    seeds: int | None = None,
    name: str | None = None,
    preset: str | None = None,
    overrides: list[str] | None = None,
    threshold: float | None = None,
) -> State[None]:
    """Compare algorithms at an equal budget of generated tokens; what is left empty is as in params.yaml.

    Args:
        algos: the algorithms; left empty, those that the policies of params.yaml use.
        seeds: how many; left empty, 3.
        name: of the folder in `runs/` for the comparison, and of the workspaces beside it.
        preset: a file of `presets/`, without its suffix.
        overrides: `key=value` each, such as `recipe.online.token_budget=50000`.
        threshold: the reward whose first reaching is timed in tokens; left empty, 0.6.
    """
    heed_interrupts()
    seeds = BAKEOFF_SEEDS if seeds is None else seeds
    threshold = BAKEOFF_THRESHOLD if threshold is None else threshold
    try:
        with workspace.open_bakeoff(CHECKOUT, preset, overrides or [], name, algos or [], seeds) as opened:
            return _compare(CHECKOUT, opened.name, opened.roots, threshold)
    except RlpipeError as error:
        return Failed(message=str(error))


def side_by_side(pipelines: Mapping[str, Pipeline], *, slots: Slots, children: Children) -> dict[str, State[None]]:
    """Run every pipeline as a subflow of that name, all at the same time. Returns: their final states.

    When the flow is interrupted or cancelled, `children` are stopped, which ends the pipelines.
    """
    with ThreadPoolExecutor(max_workers=len(pipelines)) as pool:
        futures = {}
        for name, pipeline in pipelines.items():
            context = copy_context()  # knows the flow run above
            futures[name] = pool.submit(context.run, _subflow(name, pipeline, slots, children))
        try:
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            children.stop()
            raise


def _subflow(name: str, pipeline: Pipeline, slots: Slots, children: Children) -> Callable[[], State[None]]:
    @flow(name="post-training", flow_run_name=name, persist_result=False)
    def subflow() -> State[None]:
        return pipeline(slots, children)

    return lambda: cast(State[None], subflow(return_state=True))


def finished(root: Path) -> set[str]:
    """The models that are evaluated, with all that is upstream of them up to date."""
    plan, stale = graph.read(root), graph.stale(root).keys()
    evaluations = [address for address in plan.upstream if address.partition("@")[0] == _EVALUATE]
    return {address.partition("@")[2] for address in evaluations if not stale & plan.toward([address]).upstream.keys()}


def _compare(checkout: Path, name: str, roots: Mapping[int, Path], threshold: float) -> State[None]:
    """The body of the flow."""
    from rlpipe.comparison.collect import collect  # mlflow and matplotlib take seconds to import
    from rlpipe.comparison.write import write
    from rlpipe.tracking import bakeoff_run

    params = load(next(iter(roots.values())))
    tags = {"prefect.flow_run_id": str(flow_run.id)}
    with bakeoff_run(checkout, params, name, tags, _logged(params, roots, threshold)) as parent:
        pipelines = {root.name: _pipeline(root, parent.child_tags) for root in roots.values()}
        states = side_by_side(pipelines, slots=Slots(params.runtime.slots), children=Children())
        trials = collect(name, roots, {seed: finished(root) for seed, root in roots.items()})
        folder = checkout / "runs" / name
        metrics, files = write(trials, threshold, folder)
        failed = {name: state for name, state in states.items() if not state.is_completed()}
        parent.compared(metrics, files, failed=bool(failed))
    table = (folder / "table.md").read_text(encoding="utf-8")
    create_markdown_artifact(key=_NAME, markdown=table)
    print(table)
    if failed:
        errors = "\n\n".join(f"{workspace_name}: {state.message}" for workspace_name, state in failed.items())
        return Failed(message=f"{len(failed)} of {len(states)} pipelines did not finish.\n\n{errors}")
    return Completed(message=f"{len(trials.trials)} trials compared: {folder.relative_to(checkout)}/table.md")


def _pipeline(root: Path, tags: Mapping[str, str]) -> Pipeline:
    def run(slots: Slots, children: Children) -> State[None]:
        tracked = partial(equipped, root, load(root), root.name, tags)
        return bring_up_to_date(root, slots=slots, children=children, tracked=tracked, targets=[_EVALUATE])

    return run


def _logged(params: Params, roots: Mapping[int, Path], threshold: float) -> dict[str, str]:
    """What is compared, as MLflow's parameters."""
    compared = {"algos": ",".join(params.policy), "seeds": ",".join(map(str, roots)), "threshold": threshold}
    return lineage.flattened({**compared, "recipe": params.recipe.model_dump()})
