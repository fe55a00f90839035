"""What the vLLM engines refuse before vLLM is there."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from rlpipe.config.schema import VLLM
from rlpipe.errors import ConfigError
from rlpipe.rollout.streams import seeds
from rlpipe.rollout.vllm_engine import VLLMEngine, logprobs_mode
from rlpipe.rollout.vllm_server import VLLMServer
from rlpipe.types import Request, Sampling

SETTINGS = VLLM(
    base_url="http://127.0.0.1:9", enforce_eager=True, gpu_memory_utilization=0.1, kv_cache_gb=None, max_model_len=None,
    sleep=False, timeout_s=5.0,
)  # fmt: skip
REQUEST = Request((3, 4), (0, 0, 0, 0))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed here")
def test_without_the_library_the_message_says_how_to_get_it(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"pip install 'rlpipe\[vllm\]'"):
        VLLMEngine(tiny, frozenset({1}), torch.device("cpu"), "float32", 4, SETTINGS, Sampling(1.0, 8), tmp_path / "w")


def test_a_server_that_is_not_there_is_a_mistake_of_the_configuration(tiny, tmp_path):
    engine = VLLMServer(tiny, frozenset({1}), "float32", 4, SETTINGS, tmp_path / "w")
    with pytest.raises(ConfigError, match=r"base_url=http://127.0.0.1:9: nobody answers .* VLLM_SERVER_DEV_MODE=1"):
        engine.generate([REQUEST], Sampling(1.0, 8))


def test_which_log_probs_are_those_of_the_whole_distribution():
    assert logprobs_mode(Sampling(1.0, 8)) == "processed_logprobs"
    assert logprobs_mode(Sampling(0.7, 8)) == "processed_logprobs"
    assert logprobs_mode(Sampling(1.0, 8, top_k=4)) == "raw_logprobs"
    with pytest.raises(ConfigError, match=r"temperature=0.7.*Set temperature 1.0"):
        logprobs_mode(Sampling(0.7, 8, min_p=0.1))


def test_a_stream_has_one_seed_and_no_negative_one():
    addresses = [(17, step, prompt, 0) for step in range(40) for prompt in range(40)]
    found = seeds(addresses)
    assert found == seeds(addresses)
    assert len(set(found)) == len(addresses)
    assert all(0 <= seed < 1 << 63 for seed in found)
