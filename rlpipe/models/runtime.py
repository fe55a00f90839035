"""Determinism, device and precision, fixed at the door."""

from __future__ import annotations

import os
import resource
from contextlib import AbstractContextManager, nullcontext

import torch

from rlpipe.config.schema import Runtime
from rlpipe.errors import ConfigError


def prepare_torch(runtime: Runtime, seed: int) -> torch.device:
    """Fix threads, seed and algorithms; return the device that `runtime.device` means on this machine.

    CUDA's float cumsum has no kernel that PyTorch calls deterministic, so there we ask with warn_only.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Otherwise every new tensor is first filled with NaN, in case an operation reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device='cuda': PyTorch finds no CUDA device here. Set auto or cpu.")
    wants_cuda = runtime.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if wants_cuda else "cpu")


def precision(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Forward passes in bfloat16 where asked; parameters, losses and reductions stay float32."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def peak_memory_gb() -> float:
    """The most memory this process has held so far, in 10^9 bytes: the device's where there is one, else its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
