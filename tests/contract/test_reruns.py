"""What reruns when a number changes, read from dvc.yaml by DVC itself."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def index():
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        yield repo.index


def _reruns(index, parameter):
    """Stages that read `parameter`, and everything downstream of them."""
    from dvc.dependency.param import ParamsDependency
    from networkx import ancestors

    def reads(stage):
        tracked = [name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params]
        return any(parameter == name or parameter.startswith(f"{name}.") for name in tracked)

    hit = {stage for stage in index.stages if stage.cmd and reads(stage)}
    # In DVC's graph an edge points from a stage to what it depends on, so the dependants are its ancestors.
    return {s.addressing for s in hit.union(*(ancestors(index.graph, s) for s in hit))} if hit else set()


ALL = {
    "prepare", "sft", "judge", "constitution", "pairs@gold", "reward_model@gold", "process_reward_model", "report",
    *(f"policy@{name}" for name in ("dpo", "ppo", "grpo", "rlaif")),
    *(f"evaluate@{name}" for name in ("sft", "dpo", "ppo", "grpo", "rlaif")),
}  # fmt: skip


def test_the_graph_has_exactly_these_stages(index):
    assert {stage.addressing for stage in index.stages if stage.cmd} == ALL


@pytest.mark.parametrize(
    ("parameter", "reruns"),
    [
        ("policy.grpo.kl_coef", {"policy@grpo", "evaluate@grpo", "report"}),
        ("policy.ppo.optim.lr", {"policy@ppo", "evaluate@ppo", "report"}),
        ("reward_model.gold.steps", {"reward_model@gold", "policy@ppo", "evaluate@ppo", "report"}),
        (
            "pairs.gold.samples_per_prompt",
            {"pairs@gold", "reward_model@gold", "policy@dpo", "policy@ppo", "evaluate@dpo", "evaluate@ppo", "report"},
        ),
        ("judge_model.steps", {"judge", "constitution", "policy@rlaif", "evaluate@rlaif", "report"}),
        ("constitution.rounds", {"constitution", "report"}),
        # How a judge is called changes no answer.
        ("judge_calls.concurrency", set()),
        ("judge_calls.replay", set()),
        ("evaluate.tasks", {s for s in ALL if s.startswith("evaluate")} | {"report"}),
        ("watch.window", {s for s in ALL if s.startswith(("policy", "evaluate"))} - {"evaluate@sft"} | {"report"}),
        ("report.samples", {"report"}),
        ("data.arithmetic.slip_rate", ALL),
        ("data.seed", ALL),
        ("sft.seed", ALL - {"prepare"}),
        ("seed", ALL - {"prepare", "sft"}),
        # How many stages run at once, how often to checkpoint, what is computed again and where to track change no
        # result.
        ("runtime.slots", set()),
        ("runtime.checkpoint_every", set()),
        ("runtime.gradient_checkpointing", set()),
        ("tracking.uri", set()),
    ],
)
def test_only_what_depends_on_a_number_reruns(index, parameter, reruns):
    assert _reruns(index, parameter) == reruns


def test_every_parameter_that_can_change_a_result_is_read_by_some_stage(index):
    from ruamel.yaml import YAML

    params = YAML(typ="safe").load(ROOT / "params.yaml")
    how_only = {"runtime.slots", "runtime.checkpoint_every", "runtime.gradient_checkpointing"}
    where_only = {"tracking.uri", "tracking.experiment"}
    unread = {leaf for leaf in _leaves(params) if not _reruns(index, leaf)}
    # A recipe changes nothing by itself: `rlpipe run --algos` writes policy sections from it. Nor does a way to call.
    assert {leaf for leaf in unread if not leaf.startswith(("recipe.", "judge_calls."))} == how_only | where_only


def _leaves(value, at=""):
    if not isinstance(value, dict):
        return {at}
    return {leaf for key, inner in value.items() for leaf in _leaves(inner, f"{at}.{key}" if at else key)}


def test_every_output_is_cached_so_that_a_remote_can_restore_it(index):
    assert all(out.use_cache for stage in index.stages if stage.cmd for out in stage.outs)
