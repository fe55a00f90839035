"""The engine on a vLLM server elsewhere: token ids over HTTP, weights by files that both machines see."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from torch import nn

from rlpipe.config.schema import VLLM
from rlpipe.errors import ConfigError, ModelError
from rlpipe.rollout.pushes import adapted, adapter_weights, whole_weights
from rlpipe.rollout.streams import seeds
from rlpipe.rollout.vllm_engine import logprobs_mode
from rlpipe.types import Completion, Request, Sampling

_log = logging.getLogger(__name__)

_START = (
    "Start it with VLLM_SERVER_DEV_MODE=1 (and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 for adapters), as docs/vllm.md shows."
)


class VLLMServer:
    """Samples on a server that is given `model`'s weights before the first draw and at every `refresh`.

    A server has one set of weights, so a lock on this machine lets one stage use it at a time; it is held until the
    process ends.

    Args:
        model: the live model, transformers' or with peft's adapter.
        eos_ids: tokens that end a sample.
        dtype: what the server must compute in, float32 or bfloat16.
        concurrency: how many samples are asked for at once, at most.
        settings: `rollout.vllm`.
        folder: scratch for weights, at the same path for the server.
    """

    exact = False

    def __init__(
        self, model: nn.Module, eos_ids: frozenset[int], dtype: str, concurrency: int, settings: VLLM, folder: Path
    ) -> None:
        assert settings.base_url is not None, "the schema sees to it"
        self._model, self._eos_ids, self._dtype = model, eos_ids, dtype
        self._concurrency, self._settings, self._folder = concurrency, settings, folder.absolute()
        self._url = settings.base_url.rstrip("/").removesuffix("/v1")
        self._lock = FileLock(Path(tempfile.gettempdir()) / f"rlpipe-{hashlib.sha256(self._url.encode()).hexdigest()}")
        self._served = ""
        self._mode = ""
        self._adapter = ""

    def refresh(self) -> None:
        """See `Engine`. Raises: ModelError if the server does not take the weights."""
        if self._served:
            self._push()  # else the first draw sends the model as it is then

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Engine`. Raises: ConfigError for a server that is not there or not started as needed."""
        if not requests:
            return []
        self._start()
        needed = logprobs_mode(sampling)
        either = sampling.temperature in (0.0, 1.0) and sampling.top_k is sampling.top_p is sampling.min_p is None
        if self._mode != needed and not either:
            raise ConfigError(
                f"rollout.vllm.base_url={self._url}: the server gives {self._mode}, and this way of drawing needs "
                f"{needed}. Start it with --logprobs-mode {needed}."
            )
        bodies = [
            self._body(request, seed, sampling)
            for request, seed in zip(requests, seeds([request.stream for request in requests]), strict=True)
        ]
        with ThreadPoolExecutor(min(self._concurrency, len(bodies))) as pool:
            return list(pool.map(self._completion, bodies))

    def _body(self, request: Request, seed: int, sampling: Sampling) -> dict[str, Any]:
        cuts = {"top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p}
        return {
            "model": self._adapter or self._served,
            "prompt": list(request.prompt_ids),
            "temperature": sampling.temperature,
            **{name: value for name, value in cuts.items() if value is not None},
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
            "logprobs": 0,  # the drawn token's alone
            "return_token_ids": True,
            "stop_token_ids": sorted(self._eos_ids),
            "ignore_eos": True,  # those above are all that end a sample
        }

    def _completion(self, body: dict[str, Any]) -> Completion:
        choice = self._asked("POST", "/v1/completions", body)["choices"][0]
        ids = tuple(choice["token_ids"])
        return Completion(ids, tuple(choice["logprobs"]["token_logprobs"]), ids[-1] in self._eos_ids)

    def _start(self) -> None:
        """Take the server, look at how it was started, and send the weights."""
        if self._served:
            return
        self._take()
        config = self._asked("GET", "/server_info?config_format=json")["vllm_config"]
        dtype = config["model_config"]["dtype"].removeprefix("torch.")
        if dtype != self._dtype:
            raise ConfigError(
                f"rollout.vllm.base_url={self._url}: the server computes in {dtype}, and runtime.dtype is "
                f"{self._dtype}: the step-0 gate could only fail. Start it with --dtype {self._dtype}."
            )
        if adapted(self._model) and config["lora_config"] is None:
            raise ConfigError(
                f"rollout.vllm.base_url={self._url}: model.adapter is set, and the server knows no adapters. Start it "
                "with --enable-lora and --max-lora-rank."
            )
        self._mode = config["model_config"]["logprobs_mode"]
        self._served = self._asked("GET", "/v1/models")["data"][0]["id"]
        if adapted(self._model):
            with whole_weights(self._model, self._folder) as folder:
                self._reload(folder)
        self._push()

    def _push(self) -> None:
        """The model's weights as they are now, and nothing cached that older ones made."""
        if adapted(self._model):
            # Under a name of its own: one loaded in place would be read from its file again for every step of a draw.
            old, self._adapter = self._adapter, f"rlpipe-{uuid.uuid4().hex}"
            if old:
                self._asked("POST", "/v1/unload_lora_adapter", {"lora_name": old})
            with adapter_weights(self._model, self._folder) as folder:
                self._asked("POST", "/v1/load_lora_adapter", {"lora_name": self._adapter, "lora_path": str(folder)})
        else:
            with whole_weights(self._model, self._folder) as folder:
                self._reload(folder)
        if not self._asked("POST", "/reset_prefix_cache")["success"]:
            raise ModelError(
                f"rollout.vllm.base_url={self._url}: the server still works for somebody else, so it cannot forget "
                "what older weights made of the prompts. Give each run a server of its own."
            )

    def _reload(self, folder: Path) -> None:
        self._asked("POST", "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})

    def _take(self) -> None:
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            _log.warning("%s serves another stage; waiting for that one to end.", self._url)
            self._lock.acquire()

    def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The reply's JSON; None where there is none. Raises: ConfigError, ModelError."""
        try:
            status, text = self._sent(method, path, body)
        except OSError as error:
            raise ConfigError(f"rollout.vllm.base_url={self._url}: nobody answers ({error}). {_START}") from None
        if status in (404, 405):
            raise ConfigError(f"rollout.vllm.base_url={self._url}: the server has no {path}. {_START}")
        if status != 200:
            raise ModelError(f"rollout.vllm.base_url={self._url}: {path} failed with {status}: {text[:500]}")
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return None

    def _sent(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
        at = urlsplit(self._url)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        with closing(kind(at.netloc, timeout=self._settings.timeout_s)) as connection:
            content = None if body is None else json.dumps(body)
            connection.request(method, at.path + path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
