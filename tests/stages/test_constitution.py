"""The stages of constitutional AI, on a tiny model that knows nothing: what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.dataio.files import write_rows
from rlpipe.dataio.prepared import read_demonstrations_in
from rlpipe.dataio.tokenizers import extended
from rlpipe.errors import ConfigError, DataError
from rlpipe.models.load import save, with_tokens
from rlpipe.rewards.constitutional.revising import Draft, Revised, Round
from rlpipe.rewards.judges.base import Pair
from rlpipe.rewards.judges.journal import read_judgments
from rlpipe.stages import constitution, policy
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import bench
from rlpipe.stages.by_principles import comparing
from rlpipe.stages.reporting.constitutional import constitutional
from rlpipe.types import Demonstration, Task

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
ON = ("constitution.source=policy", "constitution.prompts=3", "constitution.rounds=2", "constitution.max_new_tokens=6",
      "judge_model.principles_from=data/constitution.yaml", "rollout.max_new_tokens=6", "model.max_length=64",
      "runtime.device=cpu")  # fmt: skip
LEARNER = (
    "{algorithm: sft, starts_from: models/sft, learns_from: data/constitution, steps: 2, batch_size: 2, "
    "measure_every: 1, measure_prompts: 2, optim: {lr: 1.0e-2, schedule: constant, "
    "warmup_steps: 0, weight_decay: 0.0, max_grad_norm: 1.0}}"
)


class Memory:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def metrics(self, step: int, values: Any) -> None: ...

    def summary(self, values: Any) -> None:
        self.values |= values

    def dataset(self, name: str, path: Path) -> None:
        assert path.exists()


def stage(root: Path, name: str, item: str = "", *assignments: str) -> Stage:
    return Stage(name, item, root, parse(edited(TEXT, None, assignments)), Memory())  # type: ignore[arg-type]


@pytest.fixture
def workspace(tmp_path: Path, tiny: Any, tokenizer: Any) -> Path:
    """What the stage `constitution` reads, with random weights."""
    write_rows(tmp_path / "data/prepared/tasks.jsonl", [Task(f"t:{n}", f"{n}+1-1", str(n)) for n in range(1, 5)])
    text = (ROOT / "data/constitution.yaml").read_text(encoding="utf-8")
    (tmp_path / "data/constitution.yaml").write_text(text, encoding="utf-8")
    save(tiny, tokenizer, tmp_path / "models/sft")
    longer = extended(tokenizer, [text])
    judge = with_tokens(tiny, len(tokenizer), len(longer), 17)
    judge.config.max_position_embeddings = 200
    save(judge, longer, tmp_path / "models/judge")
    return tmp_path


def test_without_a_source_it_writes_nothing_and_says_so(tmp_path: Path) -> None:
    constitution.run(stage(tmp_path, "constitution"))
    assert json.loads((tmp_path / "metrics/constitution.json").read_text()) == {"made": False}
    written = sorted(path.name for path in tmp_path.rglob("*.jsonl"))
    assert written == ["constitution.jsonl", "demonstrations.jsonl", "principles.jsonl", "revisions.jsonl"]
    assert all(path.read_text() == "" for path in tmp_path.rglob("*.jsonl"))


def test_every_text_is_kept_and_only_whole_chains_are_demonstrations(workspace: Path) -> None:
    one = stage(workspace, "constitution", "", *ON)
    constitution.run(one)
    rows = [json.loads(line) for line in (workspace / constitution.REVISIONS).read_text().splitlines()]
    assert [row["id"] for row in rows] == ["t:1", "t:2", "t:3"]
    whole = {row["id"]: row["rounds"][-1]["revision"] for row in rows if not row["rounds"][-1]["missing"]}
    shown = (workspace / constitution.REVISED).read_text().splitlines()
    assert {row["id"]: row["response"] for row in map(json.loads, shown)} == whole
    metrics = json.loads((workspace / "metrics/constitution.json").read_text())
    assert metrics["constitution/round_0_texts"] == 3
    missing = sum(count for name, count in metrics.items() if name.startswith("constitution/missing_"))
    assert missing + metrics["data/demonstrations"] == 3
    assert len(read_judgments(workspace / "data/judgments/constitution.jsonl")) >= 3
    assert one.tracker.values["judge/calls"] >= 3  # type: ignore[attr-defined]
    assert not {"judge/calls", "judge/cost"} & set(metrics)

    first = {path: path.read_bytes() for path in workspace.rglob("*.json*") if "models" not in path.parts}
    constitution.run(one)
    assert all(path.read_bytes() == content for path, content in first.items())
    found = constitutional(one, metrics)
    assert [principle.name for principle in found.principles] == ["calculation", "completeness", "conclusion"]
    assert [example.id for example in found.examples] == ["t:1", "t:2", "t:3"]


def test_each_round_is_measured_on_the_texts_it_has() -> None:
    drafts = [Draft(f"t:{n}", "1+1", "x") for n in range(3)]
    made = [
        Revised(drafts[0], (Round("a", "c", "y"), Round("b", "c", "y"))),
        Revised(drafts[1], (Round("a", "c", "x"), Round("b", "", "", "critique malformed: the reply is empty"))),
        Revised(drafts[2], (Round("a", "c", "", "revision refused: no"),)),
    ]
    found = constitution.measured(made, [[0.0, 1.0, 1.0], [0.0, None], [1.0]], 1.0)
    counts = {name: value for name, value in found.items() if "_ci_" not in name}
    assert counts == {
        "constitution/round_0_texts": 3, "constitution/round_0_pass": 1 / 3,
        "constitution/round_1_texts": 2, "constitution/round_1_pass": 1.0, "constitution/round_1_changed": 0.5,
        "constitution/round_2_texts": 1, "constitution/round_2_pass": 1.0, "constitution/round_2_changed": 0.0,
        "constitution/missing_critique_malformed": 1, "constitution/missing_revision_refused": 1,
    }  # fmt: skip


def test_a_policy_learns_from_the_revisions_and_is_measured(workspace: Path) -> None:
    rows = [Demonstration(f"t:{n}", f"{n}+1-1", "7") for n in range(1, 4)]
    write_rows(workspace / "data/constitution/demonstrations.jsonl", rows)
    learner = stage(workspace, "policy", "shown", *ON, f"policy.shown={LEARNER}")
    policy.run(learner)
    metrics = json.loads((workspace / "metrics/policy/shown.json").read_text())
    assert {"policy/loss", "sft/token_accuracy", "reward/gold_mean", "kl/ref_seq_sum"} <= set(metrics)
    table = (workspace / "plots/policy/shown.csv").read_text().splitlines()
    losses = [float(line.split(",")[table[0].split(",").index("policy/loss")]) for line in table[1:]]
    assert losses[1] < losses[0]
    assert (workspace / "models/shown/config.json").exists()


def test_a_folder_without_demonstrations_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "demonstrations.jsonl", [])
    with pytest.raises(DataError, match="it holds no demonstration"):
        read_demonstrations_in(tmp_path)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ((f"policy.shown={LEARNER}",), "policy.shown.learns_from=data/constitution: constitution.source is none"),
        (("constitution.source=policy",), "the embedded judge was not taught the principles"),
        (("constitution.source=policy", "judge.kind=rubric"), "judge.kind is rubric, which reads no principles"),
        (("pairs.gold.principles_from=data/constitution.yaml",), "principles compare two responses"),
        (("pairs.gold.principles_from=data/other.yaml",), "no stage writes it"),
        (("constitution.samples_from=models/none",), "constitution.samples_from=models/none: no stage writes it"),
    ],
)
def test_what_cannot_work_is_refused_when_params_yaml_is_read(assignments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(edited(TEXT, None, (*ON[4:5], *assignments) if "principles compare" in said else assignments))
    assert said in str(refused.value)


def test_a_prompts_responses_are_compared_by_one_principle(workspace: Path) -> None:
    one = stage(workspace, "pairs", "principled", *ON)
    with comparing(bench(one, workspace / "models/sft", 17)) as asked:
        assert asked.judge is not None
        together = asked.judge.scores([("1+1-1", "1"), ("2+1-1", "2"), ("1+1-1", "7")])
        assert [asked.judge.score(*item) for item in (("1+1-1", "7"), ("2+1-1", "2"))] == together[:0:-1]
        assert asked.counts()["judge/judged"] == 3
    # Over all principles, whose judges count apart.
    told, tokens = one.tracker.values, asked.counts()["judge/prompt_tokens"]  # type: ignore[attr-defined]
    assert (told["judge/calls"], told["judge/calls_prompt_tokens"]) == (3, tokens)
    assert told["judge/calls_completion_tokens"] == asked.counts()["judge/completion_tokens"] > 0
    judgments = read_judgments(workspace / "data/judgments/pairs/principled.jsonl")
    assert len(judgments) == 3
    assert len({judgment.template for judgment in judgments.values()}) <= 2  # of two prompts


def test_a_margin_holds_under_every_principle(workspace: Path) -> None:
    compared = [Pair(f"{n}+1-1", "1", "7") for n in range(1, 5)]
    for margin, winners in (("0.0", {"first", "second"}), ("0.99", {"tie"})):
        one = stage(workspace, "pairs", "principled", *ON, f"judge.tie_margin={margin}")
        with comparing(bench(one, workspace / "models/sft", 17)) as asked:
            assert asked.judge is not None
            assert {verdict.winner for verdict in asked.judge.choices(compared)} <= winners
