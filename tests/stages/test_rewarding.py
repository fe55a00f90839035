"""A stage's reward from params.yaml: the policy's own tokenizer, the user's own function, and when the run stops."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.config.schema import RewardPart
from rlpipe.errors import ConfigError, ModelError, RewardError
from rlpipe.models.load import new_reward_model, save, score_head, with_normaliser
from rlpipe.scoring import score_file
from rlpipe.stages.base import Stage
from rlpipe.stages.bench import Bench
from rlpipe.stages.rewarding import gold, reward
from rlpipe.training.batching import Batching
from rlpipe.types import Task

TEXT = (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8")
TASKS = [Task(f"t:{n}", "3+4", "7") for n in range(2)]


def bench(root: Path, tokenizer: Any, *assignments: str) -> Bench:
    """What a stage has in the workspace `root`, with the policy's tokenizer on disk."""
    tokenizer.save_pretrained(root / "models/sft")
    params = parse(edited(TEXT, None, assignments))
    stage = Stage("pairs", "gold", root, params, tracker=None)  # type: ignore[arg-type]
    device = torch.device("cpu")
    return Bench(stage, device, tokenizer, Batching(tokenizer.pad_token_id, device, "float32", 64))


def test_lengths_are_counted_by_the_policys_own_tokenizer(tmp_path: Path, tokenizer: Any) -> None:
    parts = "{math_answer: 1.0, length: {weight: 0.5, max_length: 20, cache_length: 10}}"
    work = bench(tmp_path, tokenizer, f"pairs.gold.reward={parts}")
    texts = ["#### 7", "3+4=7 3+4=7 #### 7"]
    # The tokenizer has a token a character, so 18 tokens are (10 - 18) / 10 = -0.8: 1 - 0.5 * 0.8.
    scored = reward(work, work.stage.params.pairs["gold"].reward)(TASKS, texts)
    assert [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts] == [6, 18]
    assert [s.total for s in scored] == pytest.approx([1.0, 0.6])
    assert scored[1].components == {"math_answer": 1.0, "length": -0.8}


def test_a_function_of_the_workspace_is_a_component(tmp_path: Path, tokenizer: Any) -> None:
    source = "def shout(tasks, completions, *, mark: str):\n    return [text.count(mark) for text in completions]\n"
    (tmp_path / "own_stage_module.py").write_text(source, encoding="utf-8")
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    part = f'{{weight: 2.0, function: "own_stage_module:shout", sha256: "{digest}", mark: "!"}}'
    work = bench(tmp_path, tokenizer, f"pairs.gold.reward={{shout: {part}}}")
    assert [s.total for s in reward(work, work.stage.params.pairs["gold"].reward)(TASKS, ["!!", ""])] == [4.0, 0.0]


def test_the_run_stops_above_the_rate_that_params_yaml_allows(tmp_path: Path, tokenizer: Any) -> None:
    tasks = [*TASKS, Task("t:3", "?", "seven")]
    for limit, stops in (("0.3", True), ("0.34", False)):  # 1 of 3
        work = bench(tmp_path, tokenizer, f"rewards.max_missing={limit}")
        scorer = reward(work, work.stage.params.pairs["gold"].reward)
        if stops:
            with pytest.raises(RewardError, match=r"max_missing=0\.3: 1 of 3 .* 1 × math_answer: the task's answer"):
                scorer(tasks, ["#### 7"] * 3)
        else:
            assert [s.total for s in scorer(tasks, ["#### 7"] * 3)] == [1.0, 1.0, None]


def test_a_process_reward_model_has_no_part_in_whole_responses(tmp_path: Path, tokenizer: Any) -> None:
    parts = {name: RewardPart(weight=1.0) for name in ("math_answer", "process_reward_model")}
    assert reward(bench(tmp_path, tokenizer), parts)(TASKS, ["#### 7", "7"])[0].components == {"math_answer": 1.0}


def test_what_evaluates_is_the_verifier_by_itself(tmp_path: Path, tokenizer: Any) -> None:
    work = bench(tmp_path, tokenizer)
    assert [s.total for s in gold(work.stage.params)(TASKS, ["#### 7", "7"])] == [1.0, 0.0]
    with pytest.raises(ConfigError, match="no such component"):
        gold(bench(tmp_path, tokenizer, "evaluate.reward=judge").stage.params)


def test_a_stored_reward_model_scores_a_file_as_it_scores_in_a_stage(
    tmp_path: Path, tokenizer: Any, tiny: nn.Module
) -> None:
    save(tiny, tokenizer, tmp_path / "sft")
    scorer = new_reward_model(tmp_path / "sft", torch.device("cpu"))
    with torch.no_grad():
        score_head(scorer).weight.normal_()  # it begins at 0, where all score alike
    work = bench(tmp_path, tokenizer)
    save(with_normaliser(scorer, 0.5, 2.0), tokenizer, work.stage.path("models/reward_model/gold"))
    scored = reward(work, {"reward_model": RewardPart(weight=1.0)}, learned_at="models/reward_model/gold")
    in_stage = scored(TASKS, ["7", "3+4=7"])

    rows = [{"prompt": task.prompt, "completion": text} for task, text in zip(TASKS, ["7", "3+4=7"], strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = [f"path={tmp_path}/models/reward_model/gold", "device=cpu"]
    score_file("reward_model", options, tmp_path / "rows.jsonl", tmp_path / "scored.jsonl", tmp_path)
    scores = [json.loads(line)["score"] for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert scores == pytest.approx([s.total for s in in_stage])
    assert scores[0] != pytest.approx(scores[1])
    with pytest.raises(ModelError):
        score_file("reward_model", ["path=/nowhere"], tmp_path / "rows.jsonl", tmp_path / "s.jsonl", tmp_path)


def test_a_stored_process_reward_model_scores_by_the_mean_of_its_steps(
    tmp_path: Path, tokenizer: Any, tiny: nn.Module
) -> None:
    save(tiny, tokenizer, tmp_path / "sft")
    scorer = new_reward_model(tmp_path / "sft", torch.device("cpu"))
    save(scorer, tokenizer, tmp_path / "steps")
    texts = ["<think>3+4=7 7-1=6</think><answer>6</answer>", "seven"]
    rows = [{"prompt": "3+4-1", "completion": text} for text in texts]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = [f"path={tmp_path}/steps", "device=cpu"]
    score_file("process_reward_model", options, tmp_path / "rows.jsonl", tmp_path / "scored.jsonl", tmp_path)
    judged, stepless = (json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines())
    # Two steps and the answer, each with its probability.
    shares = [float(share) for share in judged["reason"].removeprefix("right, step by step: ").split(", ")]
    assert len(shares) == 3
    assert judged["score"] == pytest.approx(sum(shares) / 3, abs=0.01)
    assert (stepless["score"], stepless["reason"]) == (None, "the response has no step to judge")
