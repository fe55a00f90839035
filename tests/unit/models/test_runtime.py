import re
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rlpipe.config.schema import Runtime
from rlpipe.models.runtime import prepare_torch


class _Asked(TorchDispatchMode):
    """Which functions were asked for, of what type, on tensors that one thread works on."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if args and isinstance(args[0], torch.Tensor) and args[0].numel() == 1:
            self.seen.add((func.overloadpacket.__name__, args[0].dtype))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def by_mkl():
    """What the installed PyTorch hands to MKL, by its own header."""
    header = Path(torch.__file__).parent / "include" / "ATen" / "cpu" / "vml.h"
    return re.findall(r"^IMPLEMENT_VML_MKL\((\w+), \w+\)", header.read_text(), re.MULTILINE)


def test_every_kernel_that_mkl_chooses_lazily_is_chosen_by_one_thread(by_mkl):
    """Otherwise two threads at a function's first call may get kernels of different precision (pytorch#188792)."""
    assert "exp" in by_mkl
    runtime = Runtime(
        slots=1, threads=1, device="cpu", dtype="float32", micro_batch_tokens=1, gradient_checkpointing=False,
        checkpoint_every=1,
    )  # fmt: skip
    with _Asked() as asked:
        prepare_torch(runtime, 0)
    expected = {(name, dtype) for name in by_mkl for dtype in (torch.float32, torch.float64)}
    assert expected - asked.seen == set()
