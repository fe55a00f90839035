"""What a rollout section may not ask for, and what a message says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpipe.algos.plan import plans
from rlpipe.config import parse
from rlpipe.config.edit import edited
from rlpipe.errors import ConfigError

TEXT = (Path(__file__).resolve().parents[3] / "params.yaml").read_text(encoding="utf-8")
CORRECTED = "rollout.correction={level: token, mode: truncate, cap: 2.0}"


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ((CORRECTED,), "the transformers engine samples from the very weights that are trained"),
        (("rollout.engine=vllm_server",), "vllm.base_url null: engine is vllm_server, and a server has an address"),
        (("rollout.engine=vllm", "rollout.token_budget=900"), "token_budget 900: vLLM keeps its own account"),
        (("rollout.engine=vllm", "rollout.top_k=4", "rollout.temperature=0.7"), "top_k at temperature 0.7: vLLM gives"),
        (("rollout.engine=vllm", "rollout.min_p=0.1", CORRECTED), "correction with min_p: it divides by"),
        (("rollout.engine=vlm",), "rollout.engine='vlm': Input should be 'transformers', 'vllm' or 'vllm_server'"),
        (("judge.engine=vllm",), "engine vllm runs a local judge, and kind is embedded"),
    ],
)
def test_a_section_that_cannot_work_is_refused(assignments, said):
    with pytest.raises(ConfigError) as error:
        parse(edited(TEXT, None, assignments))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "assignments",
    [
        ("rollout.engine=vllm", CORRECTED, "rollout.temperature=0.7"),
        ("rollout.engine=vllm", "rollout.top_p=0.9"),
        ("rollout.engine=vllm_server", "rollout.vllm.base_url=http://127.0.0.1:8000"),
        ("rollout.top_k=4", "rollout.temperature=0.7"),
        ("judge.kind=local", "judge.name_or_path=models/judge", "judge.engine=vllm"),
    ],
)
def test_a_section_that_can_work_is_read(assignments):
    parse(edited(TEXT, None, assignments))


def test_a_server_has_no_room_for_student_and_teacher():
    taught = "policy.taught={algorithm: distillation, starts_from: models/sft, learns_from: models/grpo, steps: 2, "
    taught += "prompts_per_step: 2, group_size: 1, measure_every: 1, measure_prompts: 2, "
    taught += "distill_temperature: 1.0, distill_alpha: 0.5, optim: {lr: 1.0e-4, schedule: constant, warmup_steps: 1, "
    taught += "weight_decay: 0.0, max_grad_norm: 1.0}}"
    at_server = ("rollout.engine=vllm_server", "rollout.vllm.base_url=http://127.0.0.1:8000")
    with pytest.raises(ConfigError, match="one set of weights"):
        plans(parse(edited(TEXT, None, [taught, *at_server])))
