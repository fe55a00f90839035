"""The report says what was measured, the same bytes every time, and loads nothing from elsewhere."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from rlpipe import lineage
from rlpipe.config import Params, load
from rlpipe.errors import DataError
from rlpipe.stages import report
from rlpipe.stages.base import Stage
from rlpipe.stages.reporting import page, plots
from rlpipe.stages.reporting.findings import find, verdict

ROOT = Path(__file__).parents[2]
FILES = ("accuracy.png", "index.html", "report.md", "reward_hacking.png", "reward_vs_kl.png")

# Which of the tasks t0 to t3 each model solves, and its interval.
SOLVED = {"sft": "t0", "dpo": "t0 t1", "ppo": "t1", "grpo": "t0 t1 t2", "rlaif": ""}
INTERVAL = {
    "sft": (0.2, 0.3),
    "dpo": (0.29, 0.6),
    "ppo": (0.31, 0.6),
    "grpo": (0.5, 0.9),
    "rlaif": (0.0, 0.1),
}


JUDGE = {
    "trained": True, "heldout_accuracy": 0.913, "ci_low": 0.89, "ci_high": 0.93, "heldout_responses": 900,
    "right_frac": 0.4, "accepted_wrong": 0.09, "refused_right": 0.08, "canary/empty": 0.0, "canary/blank": 0.25,
    "canary_pass_rate": 0.02,
}  # fmt: skip


def reading(
    start: float, end: float, rule: str, limit: float, action: str = "warn", *, tripped: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A reading as stage `policy` writes it."""
    return {"start": start, "end": end, "rule": rule, "limit": limit, "action": action, "tripped": tripped}


def watched(name: str) -> dict[str, Any]:
    """What the watch found: ppo was stopped by its length, after its gap had been warned of; the others are calm."""
    found = {
        "measured": 30, "readings": {"length": reading(20.0, 22.0, "ratio", 1.5)}, "shares": {}, "canaries": {},
        "canaries_passing": [], "kept": "last", "kept_step": None, "stopped_at_step": None,
    }  # fmt: skip
    if name != "ppo":
        return found
    return found | {
        "readings": {
            "length": reading(20.0, 35.0, "ratio", 1.5, "stop", tripped={"step": 29, "value": 35.0, "kl": 5.8}),
            "hacking_gap": reading(0.0, 2.9, "above", 1.0, tripped={"step": 14, "value": 1.05, "kl": 2.8}),
            "canary_pass_rate": reading(0.25, 0.25, "above", 0.0, tripped={"step": 0, "value": 0.25, "kl": 0.0}),
        },
        "shares": {"reward_model": {"start": 0.25, "end": 0.9}, "format": {"start": 0.75, "end": 0.1}},
        "canaries": {"constant": 1.0, "empty": 0.0},
        "canaries_passing": ["constant"],
        "kept": "best", "kept_step": 12, "stopped_at_step": 29,
    }  # fmt: skip


def write_inputs(root: Path) -> None:
    """Everything that `report` names in dvc.yaml, by hand."""
    folders = ("metrics/evaluate", "metrics/pairs", "metrics/policy", "metrics/reward_model", "plots/policy")
    for folder in ("data/samples", "data/prepared", "data/pairs/gold", *folders):
        (root / folder).mkdir(parents=True)
    (root / "data/prepared/tasks.jsonl").write_text("prepared")
    (root / "data/pairs/gold/train.jsonl").write_text("pairs")
    for name, solved in SOLVED.items():
        low, high = INTERVAL[name]
        numbers = {"pass_at_1": (low + high) / 2, "ci_low": low, "ci_high": high, "n": 4, "kl_ref_seq": 1.5}
        numbers |= {"score_mean": 0.5, "format_rate": 0.9, "length_mean": 12.0}
        (root / f"metrics/evaluate/{name}.json").write_text(json.dumps(numbers))
        rows = [
            {"id": f"t{i}", "prompt": f"task {i}", "answer": str(i), "completion": f"{name} <b>{i}</b>"}
            | {"score": float(f"t{i}" in solved.split())}
            for i in range(4)
        ]
        (root / f"data/samples/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if name != "sft":
            (root / f"metrics/policy/{name}.json").write_text(json.dumps({"step": 30, "watch": watched(name)}))
            with (root / f"plots/policy/{name}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                measured = ["reward/score_mean", "reward/gold_mean", "kl/ref_seq_sum"]
                table.writerow(["step", "policy/loss", *measured, "watch/trained_rise", "watch/heldout_rise"])
                # The watch's first window is full at step 4. Only ppo's two rewards part.
                rises = [[0.1 * s, -0.1 * s if name == "ppo" else 0.1 * s] if s > 3 else ["", ""] for s in range(30)]
                table.writerows([s, 0.1, s / 10, s / 20, s / 5, *rises[s]] for s in range(30))
                table.writerow([30, 0.1, "", "", "", "", ""])  # an offline algorithm's step without a measurement
    (root / "metrics/judge.json").write_text(json.dumps(JUDGE))
    (root / "metrics/reward_model/gold.json").write_text(
        json.dumps({"trained": True, "heldout_accuracy": 0.875, "ci_low": 0.8, "ci_high": 0.9, "heldout_pairs": 160})
    )
    prepared = {
        "rows_in": 1010,
        "rows_kept": 1008,
        "rows_quarantined": 2,
        "split/tasks": 1000,
        "quarantine/gold": 2,
    }
    (root / "metrics/prepare.json").write_text(json.dumps(prepared))
    (root / "metrics/pairs/gold.json").write_text(json.dumps({"data/pairs_train": 840, "data/pairs_heldout": 160}))


def stage(root: Path, **sections: dict[str, Any]) -> Stage:
    """The report stage in `root`, with changes to sections of the checkout's parameters."""
    params: Params = load(ROOT)
    changed = {name: getattr(params, name).model_copy(update=update) for name, update in sections.items()}
    # The report tells the tracker nothing: any use of it fails.
    return Stage("report", "", root, params.model_copy(update=changed), Mock(spec_set=[]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after the report ran."""
    root = tmp_path_factory.mktemp("report")
    write_inputs(root)
    report.run(stage(root))
    return root


@pytest.fixture
def html(made: Path) -> str:
    return (made / "reports/index.html").read_text(encoding="utf-8")


def test_it_writes_a_page_a_text_and_pictures(made: Path) -> None:
    assert sorted(path.name for path in (made / "reports").iterdir()) == sorted(FILES)
    for name in (file for file in FILES if file.endswith(".png")):
        assert (made / "reports" / name).read_bytes().startswith(b"\x89PNG")


def test_another_process_elsewhere_writes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(made, other, ignore=shutil.ignore_patterns("reports"))
    code = "import sys; from pathlib import Path; from tests.stages.test_report import report, stage; "
    code += "report.run(stage(Path(sys.argv[1])))"
    environ = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(other)], check=True, cwd=tmp_path, env=environ)
    for name in FILES:
        assert (other / "reports" / name).read_bytes() == (made / "reports" / name).read_bytes(), name


def test_the_page_loads_nothing_from_elsewhere(html: str) -> None:
    assert "<script" not in html
    assert "<link" not in html
    assert not re.search(r"""\bsrc=|@import|url\((?!#)|<use[^>]*href="[^#]""", html)


def test_ids_on_the_page_are_unique(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) > 50
    assert len(ids) == len(set(ids))


def test_pictures_follow_the_pages_colours(html: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    for place, shade in enumerate(plots.COLOURS[:5]):
        assert f"var(--c{place})" in drawn
        assert shade not in drawn


def test_text_of_a_model_is_shown_and_never_interpreted(html: str) -> None:
    assert "grpo &lt;b&gt;0&lt;/b&gt;" in html
    assert "<b>0</b>" not in html


def test_every_number_of_a_row_is_the_measured_one(made: Path) -> None:
    text = (made / "reports/report.md").read_text(encoding="utf-8")
    # (0.5 + 0.9) / 2 = 70.0%; 70 - 25 = 45 points; t1 and t2 are gained, t0 is kept
    row = "| grpo | grpo | 70.0 | 50.0 – 90.0 | +45.0 | above, disjoint | 2 / 0 | 1.5 | 90.0 | 12 |"
    assert row in text
    assert "| rlaif | grpo | 5.0 | 0.0 – 10.0 | −20.0 | below, disjoint | 0 / 1 |" in text
    assert "| dpo | dpo | 44.5 | 29.0 – 60.0 | +19.5 | not disjoint | 1 / 0 |" in text
    assert "**grpo** solves **70.0%** of 4 held-out tasks, where SFT alone solves **25.0%**" in text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.31, 0.5, "above"), (0.3, 0.5, "overlaps"), (0.1, 0.2, "overlaps"), (0.1, 0.19, "below")],
)
def test_intervals_that_touch_are_not_disjoint(low: float, high: float, expected: str) -> None:
    assert verdict(low, high, 0.2, 0.3) == expected


def test_exhibits_are_the_first_tasks_whatever_their_outcome(made: Path) -> None:
    shown = find(stage(made, report={"samples": 2})).exhibits
    assert [exhibit.id for exhibit in shown] == ["t0", "t1"]
    right = {exhibit.id: [answer.name for answer in exhibit.answers if answer.right] for exhibit in shown}
    assert right == {"t0": ["sft", "dpo", "grpo"], "t1": ["dpo", "ppo", "grpo"]}


def test_a_threshold_decides_what_is_right(made: Path) -> None:
    strict = find(stage(made, evaluate={"pass_threshold": 1.5}))
    assert not any(answer.right for exhibit in strict.exhibits for answer in exhibit.answers)


def test_a_policy_has_one_colour_everywhere(made: Path) -> None:
    findings = find(stage(made))
    of_models = {model.name: model.colour for model in findings.models}
    assert {curve.name: curve.colour for curve in findings.curves}.items() <= of_models.items()
    assert len(set(of_models.values())) == len(of_models)
    assert of_models["sft"] == 0


def test_a_curve_has_the_measured_steps_alone(made: Path) -> None:
    curves = {curve.name: curve for curve in find(stage(made)).curves}
    assert len(curves["dpo"].kl) == 30
    assert (curves["grpo"].kl[29], curves["grpo"].gold[29], curves["grpo"].trained_on[29]) == (5.8, 1.45, 2.9)
    assert (curves["dpo"].reward, curves["ppo"].reward) == ("", "reward_model")


def test_the_running_mean_is_a_mean_of_neighbours() -> None:
    assert plots.smooth([0.0, 3.0, 6.0, 0.0], 1) == [1.5, 3.0, 3.0, 3.0]  # 3/2, 9/3, 9/3, 6/2
    assert plots.smooth([1.0, 2.0], 0) == [1.0, 2.0]


def test_lineage_is_dvcs_own_hashes_and_the_parameters_of_dvc_yaml(made: Path, html: str) -> None:
    for path in ("data/prepared", "data/pairs/gold"):
        assert lineage.digest(made / path) in html
    sections = {name.partition(".")[0] for name in find(stage(made)).parameters}
    assert sections == {name.partition(".")[0] for name in lineage.declared(ROOT, "report").params}


def test_without_pairs_it_says_that_no_reward_model_was_trained(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "none")
    (tmp_path / "none/metrics/reward_model/gold.json").write_text('{"trained": false}')
    findings = find(stage(tmp_path / "none"))
    said = "not trained: its set of pairs is empty by intent"
    assert said in page.html(findings, {"accuracy": "", "reward_vs_kl": "", "reward_hacking": ""})
    assert "- gold: not trained; its set of pairs, `data/pairs/gold`, is empty by intent." in page.markdown(findings)


def test_the_judges_agreement_with_the_truth_is_told_and_a_canary_that_won_is_an_alarm(made: Path, html: str) -> None:
    assert "agrees with <code>math_answer</code> on <strong>91.3%</strong> of 900 responses to held-out prompts" in html
    assert "Alarm: canaries won against honest responses: blank." in html
    assert "Pairs it labelled" not in html
    text = (made / "reports/report.md").read_text(encoding="utf-8")
    assert "agrees with `math_answer` on **91.3%** of 900 responses" in text


def test_pairs_that_the_judge_labelled_come_with_what_its_labels_are_worth(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "ai")
    worth = {"pairs": 200, "agreement": 0.95, "kappa": 0.9, "tied": 0.05, "first_shown": 0.5, "accuracy": 0.87}
    worth |= {"accuracy_ci_low": 0.82, "accuracy_ci_high": 0.91, "longer_wins_accuracy": 0.66, "canary/colon": 0.125}
    counts = {"data/pairs_train": 170, "data/pairs_heldout": 30} | {f"judge/{name}": n for name, n in worth.items()}
    (tmp_path / "ai/metrics/pairs/gold.json").write_text(json.dumps(counts))
    findings = find(stage(tmp_path / "ai"))
    assert "the same verdict in both orders 95.0%" in page.markdown(findings)
    said = page.html(findings, {"accuracy": "", "reward_vs_kl": "", "reward_hacking": ""})
    assert "Pairs it labelled: gold" in said
    assert "<strong>87.0</strong>" in said
    assert "Alarm: canaries won against honest responses: colon." in said


def test_pairs_that_a_reward_with_the_judge_labelled_say_whose_labels_they_are(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "ai")
    worth = {"pairs": 200, "agreement": 0.95, "tied": 0.05, "label_agreement": 0.92, "label_accuracy": 0.81}
    worth |= {"label_accuracy_ci_low": 0.75, "label_accuracy_ci_high": 0.86}
    (tmp_path / "ai/metrics/pairs/gold.json").write_text(json.dumps({f"judge/{name}": n for name, n in worth.items()}))
    findings = find(stage(tmp_path / "ai"))
    said = page.html(findings, {"accuracy": "", "reward_vs_kl": "", "reward_hacking": ""})
    assert "Pairs it helped to label: gold" in said
    assert "The labels are those of math_answer; the judge, asked to compare, agrees with 92.0% of them." in said
    assert "81.0% of them are right (95% interval 75.0 – 86.0)" in said
    assert "agrees with 92.0% of them, and 81.0% are right by `math_answer`." in page.markdown(findings)


def test_sft_alone_is_a_report_too(made: Path) -> None:
    findings = find(stage(made, evaluate={"models": ["sft"]}))
    assert "SFT solves **25.0%** of 4 held-out tasks" in page.markdown(findings)
    plots.accuracy(findings)


def test_what_tripped_is_said_in_words_and_stands_in_the_table(made: Path, html: str) -> None:
    assert "reward hacking watch</a> tripped for ppo.</p>" in html
    text = (made / "reports/report.md").read_text(encoding="utf-8")
    said = [line for line in text.splitlines() if line.startswith(("**ppo**, stopped", "- ")) and "data/" not in line]
    assert said == [
        "**ppo**, stopped at step 29:",
        "- canaries that pass: **25.0%** at step 0, KL 0 nats (limit: more than 0%): constant",
        "- gap to the held-out reward: **1.05 spreads** at step 14, KL 2.8 nats (limit: above 1.0 spreads)",
        "- length: **35.0 tokens** at step 29, KL 5.8 nats (limit: 1.5 × its start, or 1/1.5)",
    ]
    assert "| grpo | – | – | 20.0 → 22.0 | – | – | – | – | last |" in text
    row = next(line for line in text.splitlines() if line.startswith("| ppo | 0.00 → 2.90"))
    assert row == (
        "| ppo | 0.00 → 2.90 (step 14) | – | 20.0 → 35.0 (step 29) | – | – | – | 25.0% (step 0) | best, step 12 |"
    )
    assert "reward_model 25.0% at first, 90.0% at the end; format 75.0% at first, 10.0% at the end" in html


def test_only_two_different_rewards_are_drawn_against_each_other(made: Path) -> None:
    (_, rises), *others = find(stage(made)).watch.rises
    assert not others
    assert rises.name == "ppo"
    # The window is 5 steps: at step 4 the mean KL of steps 0 to 4 is 0.4.
    assert (rises.kl[0], rises.trained[0], rises.heldout[0]) == pytest.approx((0.4, 0.4, -0.4))
    assert rises.tripped == (10, 25)  # steps 14 and 29; at step 0 there is no rise yet


def test_where_nothing_tripped_it_says_so(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "calm")
    (tmp_path / "calm/metrics/policy/ppo.json").write_text(json.dumps({"watch": watched("grpo")}))
    shutil.copy(made / "plots/policy/grpo.csv", tmp_path / "calm/plots/policy/ppo.csv")
    findings = find(stage(tmp_path / "calm"))
    assert findings.watch.rises == ()
    assert "No sentinel tripped." in page.markdown(findings)
    assert "No sentinel tripped." in page.html(findings, {"accuracy": "", "reward_vs_kl": "", "reward_hacking": ""})


@pytest.mark.parametrize(
    "missing",
    ["data/samples/ppo.jsonl", "plots/policy/grpo.csv", "metrics/prepare.json", "metrics/policy/ppo.json"],
)
def test_a_missing_input_is_named(made: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(made, tmp_path / "less")
    (tmp_path / "less" / missing).unlink()
    with pytest.raises(DataError, match=re.escape(f"{missing}: no such file")):
        find(stage(tmp_path / "less"))


def test_a_long_completion_is_cut_in_the_text_and_said_to_be() -> None:
    assert page._cell("a|b\n`c`") == "a\\|b 'c'"
    assert page._cell("x" * 500) == "x" * 400 + " … (cut)"
