"""vLLM for real, on a CPU; in an environment without it these tests skip."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from small_decoders import EOS, decoder, settings

from rlpipe.types import Sampling


@pytest.fixture(scope="session", autouse=True)
def _vllm_is_there() -> None:
    if find_spec("vllm") is None:
        pytest.skip("vllm is not installed here: make test-vllm has an environment with it")


@pytest.fixture
def engine_of(tmp_path: Path):
    """An engine in process for a model, with `sampling` to come."""
    import torch

    from rlpipe.rollout.vllm_engine import VLLMEngine

    def made(model, sampling=None, eos_ids=EOS):
        sampling = sampling or Sampling(1.0, 16)
        folder = tmp_path / f"weights{id(model)}"
        return VLLMEngine(model, eos_ids, torch.device("cpu"), "float32", 16, settings(), sampling, folder)

    return made


@pytest.fixture
def model():
    """A random decoder with a matrix of its own for its output."""
    return decoder()
