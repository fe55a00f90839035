"""A stage asks the judge of params.yaml: what it said is an output, the same bytes every time, killed or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.dataio.files import write_rows
from rlpipe.dataio.prepared import HELDOUT, TASKS
from rlpipe.errors import ConfigError, DataError
from rlpipe.models.load import save
from rlpipe.rewards import JUDGES, VERIFIERS, compose, judged
from rlpipe.rewards.judges.base import Pair, PairVerdict, ReplayError
from rlpipe.rewards.judges.canaries import CANARIES
from rlpipe.rewards.judges.rubric import RubricJudge
from rlpipe.stages import pairs, policy
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import Bench, bench
from rlpipe.stages.judge_lessons import Labelled, encoded, labelled, verdicts
from rlpipe.stages.judging import asking, endpoint
from rlpipe.stages.labelling import best_against_worst, two_by_two, worth_behind_reward
from rlpipe.tracking import keys
from rlpipe.types import Task

TEXT = (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8")
SMALL = (
    "runtime.checkpoint_every=1",
    "policy.rlaif.steps=4",
    "policy.rlaif.prompts_per_step=4",
    "policy.rlaif.group_size=2",
    "rollout.max_new_tokens=6",
)
PROMPTS = ["1+2", "3+4", "5+1", "2+2", "6-1", "4-2"]
OPENAI = (
    "judge.openai={model: m, temperature: 0.0, max_tokens: 9, token_field: max_tokens, structure: none, "
    "system_role: true, extra: {}}"
)


@dataclass
class Quiet:
    """A tracker that hears everything and stops the work, as a kill would, when it is told to."""

    stop_at: int | None = None
    seen: list[int] = field(default_factory=list)
    told: dict[str, float] = field(default_factory=dict)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.seen.append(step)
        if step == self.stop_at:
            raise KeyboardInterrupt

    def summary(self, values: Mapping[str, float]) -> None:
        for name in values:
            if name != "step":
                keys.check(name)
        self.told |= values

    def dataset(self, name: str, path: Path) -> None: ...


@pytest.fixture
def root(tmp_path: Path, tokenizer: Any, tiny: nn.Module) -> Path:
    """A workspace with a policy, a judge of other weights, and tasks."""
    save(tiny, tokenizer, tmp_path / "models/sft")
    torch.manual_seed(1)
    for parameter in tiny.parameters():
        nn.init.normal_(parameter, std=0.3)
    save(tiny, tokenizer, tmp_path / "models/judge")
    write_rows(tmp_path / TASKS, [Task(f"t:{at}", prompt, str(eval(prompt))) for at, prompt in enumerate(PROMPTS)])
    return tmp_path


def stage(root: Path, *assignments: str, tracker: Any = None, name: str = "policy", item: str = "rlaif") -> Stage:
    params = parse(edited(TEXT, None, [*SMALL, *assignments]))
    return Stage(name, item, root, params, tracker or Quiet())


def at_work(root: Path, *assignments: str) -> Bench:
    return bench(stage(root, *assignments), root / "models/sft", 17)


def outputs(root: Path) -> dict[str, bytes]:
    """Every file that the stage writes for DVC, by its path."""
    paths = [
        path for room in ("models/rlaif", "plots", "metrics", "data/judgments") for path in (root / room).rglob("*")
    ]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def test_a_policy_on_a_judges_score_killed_and_resumed_is_never_killed_judgments_included(root: Path) -> None:
    shutil.copytree(root, root.with_name("other"))
    policy.run(stage(root))
    other, killed = root.with_name("other"), Quiet(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        policy.run(stage(other, tracker=killed))
    # Not even the journal is needed: what was used is in the checkpoint.
    shutil.rmtree(other / ".rlpipe/judgments")
    resumed = Quiet()
    policy.run(stage(other, tracker=resumed))
    assert (killed.seen, resumed.seen) == ([0, 1, 2], [2, 3])
    assert outputs(other) == outputs(root)
    assert outputs(root)["data/judgments/policy/rlaif.jsonl"].count(b"\n") > 8
    metrics = json.loads((root / "metrics/policy/rlaif.json").read_text())
    assert metrics["judge/judged"] == outputs(root)["data/judgments/policy/rlaif.jsonl"].count(b"\n")
    assert metrics["judge/malformed"] == 0


def test_a_rerun_asks_nothing_and_judgments_from_elsewhere_are_enough_to_replay(root: Path) -> None:
    items = [("1+2", "3"), ("1+2", "4"), ("3+4", "7")]
    with asking(at_work(root), needed=True) as asked:
        assert asked.judge is not None
        first = asked.judge.scores(items)
    with asking(at_work(root), needed=True) as again:
        assert again.judge.scores(items) == first  # type: ignore[union-attr]
        assert again.judge.tally.attempts == {}  # type: ignore[union-attr]
    written = root / "data/judgments/policy/rlaif.jsonl"
    (root / "data/known_judgments").mkdir()
    shutil.move(written, root / "data/known_judgments/elsewhere.jsonl")
    shutil.rmtree(root / ".rlpipe")
    with asking(at_work(root, "judge_calls.replay=true"), needed=True) as replayed:
        assert replayed.judge.scores(items) == first  # type: ignore[union-attr]
        with pytest.raises(ReplayError, match="1 of 1 judgments are not on file"):
            replayed.judge.scores([("9+9", "18")])  # type: ignore[union-attr]


PRICED = ("judge_calls.prompt_price=1.0e6", "judge_calls.completion_price=4.0e6")  # 1 and 4 a token


def test_the_tracker_is_told_what_the_calls_cost_and_no_output_knows_of_it(root: Path) -> None:
    policy.run(stage(root))
    unpriced = outputs(root)
    shutil.rmtree(root / ".rlpipe")
    first, again = Quiet(), Quiet()
    policy.run(stage(root, *PRICED, tracker=first))
    assert outputs(root) == unpriced
    questions, replies = first.told["judge/prompt_tokens"], first.told["judge/completion_tokens"]
    assert questions > replies > 0
    assert first.told["judge/calls_prompt_tokens"] == questions
    assert first.told["judge/calls_completion_tokens"] == replies
    assert first.told["judge/calls"] == first.told["judge/judged"]
    assert first.told["judge/too_long"] > 0  # these were never put, so they are no calls
    assert first.told["judge/calls_cost"] == first.told["judge/cost"] == questions + 4 * replies
    # A rerun has everything on file: it pays nothing, and what it uses cost the same.
    policy.run(stage(root, *PRICED, tracker=again))
    assert outputs(root) == unpriced
    assert [again.told[f"judge/calls{of}"] for of in ("", "_prompt_tokens", "_completion_tokens", "_cost")] == [0] * 4
    assert again.told["judge/cost"] == first.told["judge/cost"]


def test_calls_of_a_run_that_fails_are_told_too(root: Path) -> None:
    tracker = Quiet(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        policy.run(stage(root, *PRICED, tracker=tracker))
    assert tracker.told["judge/calls"] > 0
    assert tracker.told["judge/calls_cost"] > 0


def test_who_asks_nobody_writes_no_judgments_and_needs_no_judge(root: Path) -> None:
    shutil.rmtree(root / "models/judge")
    tracker = Quiet()
    with asking(bench(stage(root, tracker=tracker), root / "models/sft", 17), needed=False) as asked:
        assert asked.judge is None
    assert tracker.told == {}  # and has no calls to tell of
    assert (root / "data/judgments/policy/rlaif.jsonl").read_bytes() == b""


def test_the_rubric_is_asked_by_the_same_key(root: Path) -> None:
    with asking(at_work(root, "judge.kind=rubric", "judge.tie_margin=0.25"), needed=True) as asked:
        assert asked.judge == RubricJudge(tie_margin=0.25)
    with asking(at_work(root, "judge.kind=rubric"), needed=True) as asked:
        assert asked.judge == JUDGES["rubric"]


def test_the_margin_of_params_yaml_is_the_embedded_judges(root: Path) -> None:
    compared = [Pair(prompt, "1", "22") for prompt in PROMPTS]
    winners = []
    for margin in ("0.0", "0.99"):
        with asking(at_work(root, f"judge.tie_margin={margin}"), needed=True) as asked:
            assert asked.judge is not None
            winners.append({verdict.winner for verdict in asked.judge.choices(compared)})
    assert "tie" not in winners[0]
    assert winners[1] == {"tie"}


def test_a_server_is_called_as_judge_calls_says(root: Path) -> None:
    params = stage(root, "judge.kind=openai", OPENAI, "judge_calls.base_url=http://127.0.0.1:9/v1").params
    assert (endpoint(params).model, endpoint(params).base_url, endpoint(params).retries) == (
        "m", "http://127.0.0.1:9/v1", 4
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"judge_calls\.base_url=null: judge\.kind is openai"):
        endpoint(stage(root, "judge.kind=openai", OPENAI).params)


# ---- what it learns from, and what it labels ----------------------------------------------------------------


def test_a_lesson_is_the_question_as_it_is_asked_and_one_token_of_reply(root: Path, tokenizer: Any) -> None:
    task = Task("t", "3+4", "7")
    work, rows = at_work(root), [Labelled(task, "7", is_right=True), Labelled(task, "8", is_right=False)]
    found = encoded(work, verdicts(work, rows))
    assert [tokenizer.decode(prompt) for prompt, _ in found.examples] == [
        "<|user|>3+4 7<|assistant|>",
        "<|user|>3+4 8<|assistant|>",
    ]
    assert [tokenizer.decode(reply) for _, reply in found.examples] == ["1<|end|>", "0<|end|>"]


def test_labels_that_are_all_the_same_teach_nothing(root: Path) -> None:
    rows = [Task(f"t:{at}", prompt, "99999") for at, prompt in enumerate(PROMPTS)]  # nobody says that
    with pytest.raises(DataError, match=r"judge_model\.labels=math_answer: the SFT policy's samples are all right or"):
        labelled(at_work(root), rows)


def test_siblings_are_judged_in_twos_and_measured_against_the_verifier() -> None:
    right, short = "<think>7+5=12 12-2=10</think><answer>10</answer>", "<think>7+5=12</think><answer>12</answer>"
    slip = "<think>7+5=13 13-2=11</think><answer>11</answer>"
    tasks = [Task("a", "7+5-2", "10")] * 4 + [Task("b", "7+5-2", "10")] * 4
    # Of task a: right against short, then two alike, which are no pair. Of b: short against slip, slip against right.
    texts = [right, short, short, short, short, slip, slip, right]
    gold = compose({"math_answer": 1.0}, VERIFIERS)
    made, worth = two_by_two(tasks, texts, 4, JUDGES["rubric"], gold, canary_prompts=1)
    assert [(pair.id, pair.chosen) for pair in made] == [("a", right), ("b", slip), ("b", right)]
    # The verifier tells two of the three pairs apart, short and slip being both wrong; the rubric is right on both.
    assert (worth["judge/pairs"], worth["judge/labelled_pairs"], worth["judge/accuracy"]) == (3, 2, 1.0)
    assert worth["judge/agreement"] == 1.0
    assert worth["judge/longer_wins_accuracy"] == 0.75  # right is longer than short, and as long as slip: a tie
    assert worth["data/ties_dropped"] == 0
    assert worth["judge/canary_pass_rate"] == 0


def test_pairs_of_a_reward_with_a_judge_in_it_are_shown_to_the_judge_as_they_were_drawn() -> None:
    right, short = "<think>7+5=12 12-2=10</think><answer>10</answer>", "<think>7+5=12</think><answer>12</answer>"
    tasks = [Task("a", "7+5-2", "10")] * 3 + [Task("b", "7+5-2", "10")] * 3 + [Task("c", "7+5-2", "10")] * 3
    texts = [right, short, "", short, "", right, short, short, short]
    reward = compose({"judge": 1.0}, {"judge": judged(JUDGES["rubric"])})
    gold, scored = compose({"math_answer": 1.0}, VERIFIERS), reward(tasks, texts)
    shown: list[Pair] = []

    class Heard(RubricJudge):
        def choices(self, pairs: Sequence[Pair]) -> list[PairVerdict]:
            shown.extend(pairs)
            return super().choices(pairs)

    pairs = best_against_worst(tasks, texts, scored, 3)
    assert [(pair.id, pair.chosen, pair.rejected) for pair in pairs] == [("a", right, ""), ("b", right, "")]
    worth = worth_behind_reward(tasks, texts, scored, 3, Heard(), gold, canary_prompts=1)
    assert [(pair.first, pair.second) for pair in shown] == [(right, ""), ("", right)]
    assert (worth["judge/pairs"], worth["judge/agreement"], worth["judge/kappa"]) == (2, 1.0, 1.0)
    assert worth["judge/label_agreement"] == worth["judge/label_accuracy"] == worth["judge/accuracy"] == 1.0
    assert worth["judge/label_accuracy_ci_low"] < 1.0 == worth["judge/label_accuracy_ci_high"]
    assert worth["judge/canary_pass_rate"] == 0


AI = (
    "pairs.ai={source: policy, samples_from: models/sft, labels_from: models/judge, principles_from: data/prepared, "
    "reward: {judge: 1.0, longer: 0.1}, samples_per_prompt: 4, token_budget: null, heldout_fraction: 0.2}"
)


def test_a_set_of_pairs_that_a_reward_labels_says_what_its_judge_is_worth(root: Path) -> None:
    write_rows(root / HELDOUT, [Task("h:0", "9+9", "18")])
    tracker = Quiet()
    made = stage(root, AI, tracker=tracker, name="pairs", item="ai")
    pairs.run(made)
    found = json.loads((root / "metrics/pairs/ai.json").read_text())
    made_of = found["data/pairs_train"] + found["data/pairs_heldout"]
    assert found["judge/pairs"] + found["judge/missing"] == made_of == len(PROMPTS) - found["data/ties_dropped"]
    assert found["judge/agreement"] == 1.0  # the embedded judge sees no order
    assert 0 <= found["judge/label_agreement"] <= 1
    assert {f"judge/canary/{name}" for name in ("empty", "colon", "begging")} <= set(found)
    assert tracker.told.keys() >= found.keys()
    # What was asked for this is among the judgments that the set is made of: the canaries too, no pair twice.
    questions = len(PROMPTS) * (4 + len(CANARIES))
    assert found["judge/judged"] + found["judge/too_long"] <= questions
    assert (root / "data/judgments/pairs/ai.jsonl").read_bytes().count(b"\n") == found["judge/judged"]
    written = {path: path.read_bytes() for path in [*root.rglob("*.json"), *root.rglob("data/**/*.jsonl")]}
    pairs.run(made)
    assert all(path.read_bytes() == content for path, content in written.items())


def test_a_set_of_pairs_without_a_judge_asks_none(root: Path) -> None:
    shutil.rmtree(root / "models/judge")
    write_rows(root / HELDOUT, [Task("h:0", "9+9", "18")])
    pairs.run(stage(root, "pairs.gold.reward={longer: 1.0}", name="pairs", item="gold"))
    assert not [name for name in json.loads((root / "metrics/pairs/gold.json").read_text()) if "judge" in name]
