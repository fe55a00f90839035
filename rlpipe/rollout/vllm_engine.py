"""The engine on vLLM in this process: the only file that imports vllm, and only when an engine starts."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from rlpipe.config.schema import VLLM
from rlpipe.errors import ConfigError, ModelError
from rlpipe.rollout.pushes import adapted, adapter_rank, adapter_weights, whole_weights
from rlpipe.rollout.streams import seeds
from rlpipe.types import Completion, Request, Sampling

# The ranks that vLLM has room for; an adapter's own is rounded up to one of them.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_ADAPTER = ("policy", 1)
# vLLM reads these when it is imported. One process: the scheduler's steps then depend on the requests alone.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # A stage's threads are the stage's: vLLM would bind them to cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_CPU_ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1"}

LogprobsMode = Literal["raw_logprobs", "processed_logprobs"]


def logprobs_mode(sampling: Sampling) -> LogprobsMode:
    """Which of vLLM's log-probs are those of the whole distribution at the sampling temperature.

    "raw" ones are the model's own, "processed" ones stand behind temperature and cuts; at temperature 1 the raw ones
    are right whatever is cut, and without cuts the processed ones are at any temperature.
    Raises: ConfigError where neither is.
    """
    is_cut = not (sampling.top_k is sampling.top_p is sampling.min_p is None)
    if is_cut and sampling.temperature not in (0.0, 1.0):
        raise ConfigError(
            f"rollout.temperature={sampling.temperature:g}: with top_k, top_p or min_p, vLLM gives log-probs either "
            "before temperature or after the cut, and the trainer needs those between. Set temperature 1.0, or null "
            "instead of the cut, or engine transformers."
        )
    return "raw_logprobs" if is_cut else "processed_logprobs"


class VLLMEngine:
    """Samples by vLLM from a copy of `model`'s weights, which `refresh` brings up to date.

    It starts with the first draw. Full weights and adapters go over by file: an adapter as a LoRA request that is read
    anew under its old number, full weights in place; either way what was cached of prompts is forgotten.

    Args:
        model: the live model, transformers' or with peft's adapter.
        eos_ids: tokens that end a sample.
        device: where it runs.
        dtype: of weights and arithmetic, float32 or bfloat16.
        batch_size: how many samples are decoded at once, at most.
        settings: `rollout.vllm`.
        sampling: how tokens are drawn; what `generate` is called with later must need the same log-probs.
        folder: scratch for weights.
    Raises: ConfigError if vllm is not installed, or can give no log-probs for this way of drawing.
    """

    exact = False

    def __init__(
        self,
        model: nn.Module,
        eos_ids: frozenset[int],
        device: torch.device,
        dtype: str,
        batch_size: int,
        settings: VLLM,
        sampling: Sampling,
        folder: Path,
    ) -> None:
        if find_spec("vllm") is None:
            raise ConfigError(
                "rollout.engine=vllm (or judge.engine=vllm): the package vllm is not installed here. Run pip install "
                "'rlpipe[vllm]', or set transformers."
            )
        self._model, self._eos_ids, self._device = model, eos_ids, device
        self._dtype, self._batch_size, self._settings = dtype, batch_size, settings
        self._mode, self._folder = logprobs_mode(sampling), folder
        self._llm: Any = None
        self._adapter: Any = None
        self._asleep = False

    def refresh(self) -> None:
        """See `Engine`. Raises: ModelError if vLLM cannot take the weights."""
        if self._llm is None:
            return  # the first draw starts from the model as it is then
        self._wake()  # and stay so: a draw follows
        self._push()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `Engine`. Raises: ConfigError if the sampling needs other log-probs."""
        if not requests:
            return []
        if logprobs_mode(sampling) != self._mode:
            raise ConfigError(
                f"rollout.engine=vllm: it was started for {self._mode}, and this draw needs others (top_k, top_p or "
                "min_p set here and not there). Draw both ways with cuts, or both without."
            )
        params = [self._sampling_params(seed, sampling) for seed in seeds([request.stream for request in requests])]
        return [_completion(output.outputs[0], self._eos_ids) for output in self._run(requests, params)]

    def reply_logps(self, asked: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> list[list[float]]:
        """For each (prompt, replies): nats, each reply's tokens summed, behind the prompt. No token is drawn."""
        rows = [(prompt, reply) for prompt, replies in asked for reply in replies]
        requests = [Request((*prompt, *reply), (0, 0, 0, 0)) for prompt, reply in rows]
        params = [self._vllm().SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False) for _ in rows]
        found = iter(
            [
                _prompt_logp(output, start=len(prompt))
                for output, (prompt, _) in zip(self._run(requests, params), rows, strict=True)
            ]
        )
        return [[next(found) for _ in replies] for _, replies in asked]

    def _run(self, requests: Sequence[Request], params: Sequence[Any]) -> list[Any]:
        self._start()
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        with self._awake(), undisturbed():
            return self._llm.generate(prompts, list(params), lora_request=self._adapter, use_tqdm=False)

    def _sampling_params(self, seed: int, sampling: Sampling) -> Any:
        return self._vllm().SamplingParams(
            temperature=sampling.temperature,
            top_k=sampling.top_k or 0,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            min_p=sampling.min_p or 0.0,
            max_tokens=sampling.max_new_tokens,
            seed=seed,
            logprobs=0,  # the drawn token's alone
            stop_token_ids=sorted(self._eos_ids),
            ignore_eos=True,  # those above are all that end a sample
            detokenize=False,
        )

    def _start(self) -> None:
        if self._llm is not None:
            return
        vllm = self._vllm()
        with whole_weights(self._model, self._folder) as folder, undisturbed():
            self._llm = vllm.LLM(model=str(folder), **self._options())
        if adapted(self._model):
            self._push()
        self._sleep()

    def _options(self) -> Mapping[str, Any]:
        settings, on_gpu = self._settings, self._device.type == "cuda"
        options: dict[str, Any] = {
            "dtype": self._dtype,
            "enforce_eager": settings.enforce_eager or not on_gpu,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "max_model_len": settings.max_model_len,
            "enable_sleep_mode": settings.sleep and on_gpu,
            "logprobs_mode": self._mode,
            "max_num_seqs": self._batch_size,
            "generation_config": "vllm",  # nothing is taken from a file beside the weights
            "skip_tokenizer_init": True,  # token in, token out
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "seed": 0,  # every request brings its own
        }
        if settings.kv_cache_gb is not None:
            options["kv_cache_memory_bytes"] = int(settings.kv_cache_gb * 1e9)
        if adapted(self._model):
            rank = adapter_rank(self._model)
            options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": min(r for r in _RANKS if r >= rank)}
        return options

    def _push(self) -> None:
        """The model's weights as they are now, and nothing cached that older ones made."""
        if adapted(self._model):
            name, number = _ADAPTER
            with adapter_weights(self._model, self._folder) as folder:
                request = self._vllm().lora.request.LoRARequest(name, number, str(folder), load_inplace=True)
                if not self._llm.llm_engine.add_lora(request):
                    raise ModelError(f"rollout.engine=vllm: vLLM would not take the adapter in {folder}.")
            self._adapter = self._vllm().lora.request.LoRARequest(name, number, str(folder))
        else:
            with whole_weights(self._model, self._folder) as folder:
                self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        if not self._llm.reset_prefix_cache():
            raise ModelError("rollout.engine=vllm: vLLM still holds what older weights made of the prompts.")

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """The engine with its memory; a GPU's is given back afterwards."""
        self._wake()
        try:
            yield
        finally:
            self._sleep()

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False

    def _sleep(self) -> None:
        if self._settings.sleep and self._device.type == "cuda":
            self._llm.sleep(level=1)
            self._asleep = True

    def _vllm(self) -> Any:
        """The library, imported when an engine starts: it takes seconds."""
        for name, value in (_ENVIRONMENT | ({} if self._device.type == "cuda" else _CPU_ENVIRONMENT)).items():
            os.environ.setdefault(name, value)
        import vllm
        import vllm.lora.request

        return vllm


@contextmanager
def undisturbed() -> Iterator[None]:
    """vLLM seeds every generator of the process as it starts, draws from them beside each request's own, and on a CPU
    takes `torch.set_num_threads` away.

    Training goes on in this process, and its bits must not depend on who else lives there.
    """
    threads, set_num_threads, default = torch.get_num_threads(), torch.set_num_threads, torch.get_default_dtype()
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)
            torch.set_default_dtype(default)
            random.setstate(python)
            np.random.set_state(numpy)


def _completion(output: Any, eos_ids: frozenset[int]) -> Completion:
    ids = tuple(output.token_ids)
    logps = tuple(at[token].logprob for at, token in zip(output.logprobs, ids, strict=True))
    return Completion(ids, logps, ids[-1] in eos_ids)


def _prompt_logp(output: Any, *, start: int) -> float:
    ids = output.prompt_token_ids
    return sum(output.prompt_logprobs[at][ids[at]].logprob for at in range(start, len(ids)))
