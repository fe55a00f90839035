"""A whole bakeoff on a pipeline whose stages only pretend: what runs, what is compared, what MLflow is told."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest

from flows.entry import bakeoff
from rlpipe.config import load
from rlpipe.workspace import open_bakeoff
from tests.flows.tiny_project import commit, git

REPOSITORY = Path(__file__).resolve().parents[2]
_PIPELINE = """\
stages:
  sft:
    cmd: python work.py sft sft ${seed}
    deps: [work.py]
    params: [seed]
    outs: [models/sft]
  pairs:
    cmd: python work.py pairs pairs ${seed}
    deps: [work.py, models/sft]
    params: [seed, pairs.gold.token_budget]
    outs: [data/pairs/gold]
    metrics: [metrics/pairs/gold.json]
  policy:
    foreach: ${policy}
    do:
      cmd: python work.py policy ${key} ${seed}
      deps: [work.py, models/sft]
      params: [seed, "policy.${key}"]
      outs: ["models/${key}"]
      plots: ["plots/policy/${key}.csv"]
  evaluate:
    matrix: {name: "${evaluate.models}"}
    cmd: python work.py evaluate ${item.name} ${seed}
    deps: [work.py, "models/${item.name}", data/pairs/gold]
    params: [seed]
    metrics: ["metrics/evaluate/${item.name}.json"]
  report:
    cmd: python work.py report report ${seed}
    deps: [work.py, metrics/evaluate]
    outs: [reports]
"""
# sft solves 0.3 of the tasks, every policy 0.5 or, with the odd seed, 0.6. Six steps of 100 tokens each.
_WORK = """\
import json, pathlib, sys
stage, name, seed = sys.argv[1:]
with open("trace.txt", "a") as file:
    file.write(f"{stage}@{name}\\n")
if f"{stage}@{name}" in pathlib.Path("../../failing.txt").read_text().split():
    sys.exit("TrainingError: the loss is not finite. Lower the learning rate.")

def write(path, text):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(text)

if stage in ("sft", "policy"):
    write(f"models/{name}", name + seed)
if stage == "pairs":
    write("data/pairs/gold", seed)
    write("metrics/pairs/gold.json", '{"data/tokens_drawn": 700}')
if stage == "policy":
    rows = [f"{step},{0.1 * step},{0.2 * step},{100 * (step + 1)}" for step in range(6)]
    write(f"plots/policy/{name}.csv", "\\n".join(["step,reward/gold_mean,kl/ref_seq_sum,length/tokens_drawn", *rows]))
if stage == "evaluate":
    share = 0.3 if name == "sft" else 0.5 + 0.1 * (int(seed) % 2)
    write(f"metrics/evaluate/{name}.json", json.dumps({"pass_at_1": share, "kl_ref_seq": 2.0}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    from dvc.repo import Repo

    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text(_PIPELINE)
    (tmp_path / "work.py").write_text(_WORK)
    (tmp_path / "failing.txt").write_text("")
    outputs = "/models/\n/data/\n/metrics/\n/plots/\n/reports/\n"
    (tmp_path / ".gitignore").write_text(f"/runs/\n/.rlpipe/\n/trace.txt\n/mlflow.db*\n/mlartifacts/\n{outputs}")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    Repo.init(str(tmp_path)).close()
    commit(tmp_path)
    return tmp_path


def run(checkout: Path, *algos: str) -> tuple[int, set[str]]:
    """The exit code of a bakeoff with two seeds, and what ran, as `<seed>:<stage>@<name>`."""
    with open_bakeoff(checkout, None, [], None, algos, 2) as opened:
        code = bakeoff(checkout, opened.name, list(opened.roots), 0.25)
        ran = set()
        for seed, root in opened.roots.items():
            trace = root / "trace.txt"
            ran |= {f"{seed}:{line}" for line in trace.read_text().split()} if trace.exists() else set()
            trace.unlink(missing_ok=True)
        return code, ran


def table(checkout: Path) -> dict[str, dict[str, str]]:
    with (checkout / "runs" / "bakeoff" / "table.csv").open() as file:
        return {row["algorithm"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_url")
def test_a_bakeoff_from_the_first_run_to_a_failure(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = load(checkout).seed
    seeds = (first, first + 1)
    code, ran = run(checkout, "grpo", "dpo")
    assert code == 0
    stages = ["sft@sft", "pairs@pairs", "policy@grpo", "policy@dpo"]
    stages += ["evaluate@sft", "evaluate@grpo", "evaluate@dpo"]
    assert ran == {f"{seed}:{stage}" for seed in seeds for stage in stages}  # and no report, which nothing needs

    rows = table(checkout)
    assert set(rows) == {"sft", "grpo", "dpo"}
    assert float(rows["grpo"]["accuracy"]) == pytest.approx(0.55)  # 0.5 and 0.6
    assert float(rows["grpo"]["gain"]) == pytest.approx(0.25)
    # The moving mean of 5 is 0.2 at the fifth step and 0.3 at the sixth, where 600 tokens are drawn.
    assert float(rows["grpo"]["tokens_to_threshold"]) == 600
    assert float(rows["dpo"]["tokens_to_threshold"]) == 700  # the pairs'
    assert rows["grpo"]["seconds"] == ""  # these stages told MLflow nothing
    folder = checkout / "runs" / "bakeoff"
    assert "| grpo | 55.0 [" in (folder / "table.md").read_text()
    assert "| grpo | 55.0 [" in capsys.readouterr().out
    assert all((folder / name).stat().st_size > 10_000 for name in ("bakeoff.png", "frontier.png"))

    with sqlite3.connect(checkout / "mlflow.db") as database:
        ((parent,),) = database.execute("select run_uuid from runs where name = 'bakeoff'").fetchall()
        children = database.execute(
            "select r.name from runs r join tags t using (run_uuid) where t.key = 'mlflow.parentRunId' and t.value = ?",
            (parent,),
        ).fetchall()
        logged = dict(database.execute("select key, value from metrics where run_uuid = ?", (parent,)).fetchall())
        told = dict(database.execute("select key, value from params where run_uuid = ?", (parent,)).fetchall())
    assert {name for (name,) in children} == {f"bakeoff-seed{seed}" for seed in seeds}
    assert logged["bakeoff/grpo/accuracy"] == pytest.approx(0.55)
    assert (told["algos"], told["seeds"]) == ("grpo,dpo", f"{seeds[0]},{seeds[1]}")
    assert {path.name for path in (checkout / "mlartifacts").rglob("*.*")} >= {"table.csv", "table.md", "bakeoff.png"}

    # One more algorithm: the others are done. It fails with both seeds, and they are compared all the same.
    (checkout / "failing.txt").write_text("policy@rloo")
    code, ran = run(checkout, "grpo", "dpo", "rloo")
    assert code == 1
    assert ran == {f"{seed}:policy@rloo" for seed in seeds}
    rows = table(checkout)
    assert (rows["rloo"]["seeds"], rows["rloo"]["accuracy"]) == ("0", "")
    assert rows["grpo"]["seeds"] == "2"
    assert "| rloo | failed |" in (folder / "table.md").read_text()
