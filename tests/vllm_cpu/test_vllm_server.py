"""The engine on a vLLM server that this test starts and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from small_decoders import CLOSE, EOS, REQUESTS, decoder, gap, settings, shaken

from rlpipe.config.schema import Adapter
from rlpipe.errors import ConfigError, ModelError
from rlpipe.models.learner import learner
from rlpipe.models.load import save
from rlpipe.rollout.vllm_server import VLLMServer
from rlpipe.types import Sampling

PLAIN = Sampling(1.0, 16)
_SWITCHES = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}
_OPTIONS = (
    "--dtype float32 --enforce-eager --kv-cache-memory-bytes 100000000 --generation-config vllm "
    "--logprobs-mode processed_logprobs --enable-lora --max-lora-rank 8 --disable-uvicorn-access-log"
)


@pytest.fixture(scope="module")
def base_url(tokenizer, tmp_path_factory):
    """A server of the model as it is before anything is learned, at a free port of the loopback."""
    folder = tmp_path_factory.mktemp("served")
    save(decoder(), tokenizer, folder / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")]
    command += ["--host", "127.0.0.1", "--port", str(port), *_OPTIONS.split()]
    log = (folder / "log").open("w")
    server = subprocess.Popen(command, env={**os.environ, **_SWITCHES}, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, 15)  # with its engine, a process of its own
        server.wait(60)
        log.close()


def _wait(url, server, log):
    for _ in range(400):
        try:
            urlopen(url, timeout=5).close()
            return
        except (URLError, OSError):
            assert server.poll() is None, log.read_text()[-4000:]
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-4000:])


@pytest.fixture
def server_of(base_url, tmp_path):
    def made(model, dtype="float32"):
        return VLLMServer(model, EOS, dtype, 8, settings(base_url), tmp_path / "weights")

    return made


def test_it_draws_what_the_engine_in_process_draws(model, server_of, engine_of):
    shaken(model)  # other weights than the server was started with
    drawn = server_of(model).generate(REQUESTS, PLAIN)
    assert gap(model, REQUESTS, drawn) < CLOSE
    assert [c.ids for c in drawn] == [c.ids for c in engine_of(model).generate(REQUESTS, PLAIN)]
    assert [c.finished for c in drawn] == [c.ids[-1] in EOS for c in drawn]


def test_log_probs_at_another_temperature(model, server_of):
    sampling = Sampling(0.7, 16)
    assert gap(model, REQUESTS, server_of(model).generate(REQUESTS, sampling), 0.7) < CLOSE


def test_new_weights_reach_it_with_a_refresh_and_not_before(model, server_of):
    engine = server_of(model)
    engine.generate(REQUESTS, PLAIN)
    shaken(model)
    assert gap(model, REQUESTS, engine.generate(REQUESTS, PLAIN)) > 0.1
    engine.refresh()
    assert gap(model, REQUESTS, engine.generate(REQUESTS, PLAIN)) < CLOSE


def test_a_new_adapter_reaches_it_with_a_refresh_and_not_before(model, server_of):
    policy = learner(model, Adapter(rank=4, alpha=8, dropout=0.0))
    engine = server_of(policy)
    assert gap(policy, REQUESTS, engine.generate(REQUESTS, PLAIN)) < CLOSE
    shaken(policy)
    assert gap(policy, REQUESTS, engine.generate(REQUESTS, PLAIN)) > 0.1
    engine.refresh()
    assert gap(policy, REQUESTS, engine.generate(REQUESTS, PLAIN)) < CLOSE


def test_a_server_that_cannot_give_the_log_probs_is_refused(model, server_of):
    with pytest.raises(ConfigError, match="--logprobs-mode raw_logprobs"):
        server_of(model).generate(REQUESTS, Sampling(1.0, 16, top_k=2))


def test_a_server_in_another_precision_is_refused(model, server_of):
    with pytest.raises(ConfigError, match="--dtype bfloat16"):
        server_of(model, "bfloat16").generate(REQUESTS, PLAIN)


def test_weights_that_do_not_fit_are_an_error(model, server_of, tmp_path):
    engine = server_of(model)
    engine.generate(REQUESTS[:1], PLAIN)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelError, match="collective_rpc failed with 500"):
        engine._reload(tmp_path / "nothing")
