"""Determinism, device and precision, fixed at the door."""

from __future__ import annotations

import os
import resource
from contextlib import AbstractContextManager, nullcontext

import torch

from rlpipe.config.schema import Runtime
from rlpipe.errors import ConfigError

# What PyTorch computes by MKL's vector functions on a CPU (IMPLEMENT_VML_MKL in ATen/cpu/vml.h).
_BY_MKL = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin", "sqrt", "tan", "tanh",
    "trunc",
)  # fmt: skip


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
    _settle_kernels()
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("runtime.device='cuda': PyTorch finds no CUDA device here. Set auto or cpu.")
    wants_cuda = runtime.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if wants_cuda else "cpu")


def _settle_kernels() -> None:
    """Has MKL choose its kernels here, where one thread asks.

    It chooses at each function's first call. If several threads make that call at once, one of them may get a kernel of
    half the digits for its part of the tensor, this once (github.com/pytorch/pytorch/issues/188792).
    """
    for name in _BY_MKL:
        for dtype in (torch.float32, torch.float64):
            getattr(torch, name)(torch.zeros(1, dtype=dtype))


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
