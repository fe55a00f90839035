"""Importing a stage loads neither scikit-learn nor scipy nor pandas; whoever wants them still gets them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("sft", "judge", "pairs", "reward_model", "policy", "evaluate")


def _printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_what_a_stage_imports_does_without_what_transformers_can_do_without() -> None:
    code = (
        f"import importlib, sys\nfor stage in {STAGES}:\n    importlib.import_module(f'rlpipe.stages.{{stage}}')\n"
        "from transformers import AutoTokenizer, Qwen2ForCausalLM, LlamaForSequenceClassification\n"
        "print(sorted({'sklearn', 'scipy', 'pandas', 'mlflow', 'datasets', 'matplotlib'} & set(sys.modules)))"
    )
    assert _printed(code) == "[]"


@pytest.mark.slow
def test_the_tokenizer_alone_does_without_it_too() -> None:
    code = (
        "import sys\nimport rlpipe.dataio.tokenizers\nfrom transformers import Qwen2ForCausalLM\n"
        "print(sorted({'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    assert _printed(code) == "[]"


@pytest.mark.slow
def test_a_reward_of_the_users_own_may_import_both_before_and_after() -> None:
    assert _printed("import rlpipe.huggingface\nimport sklearn, scipy.optimize\nprint(sklearn.__name__)") == "sklearn"
    kept = "import scipy\nimport rlpipe.huggingface, sys\nprint(sys.modules['scipy'] is scipy)"
    assert _printed(kept) == "True"
