"""Model-written programs, run against tests where they can neither escape nor fake a pass. See docs/sandbox.md."""

from rlpipe.sandbox.errors import SandboxError
from rlpipe.sandbox.isolation import Isolation, isolation
from rlpipe.sandbox.jobs import CallTests, Job, OutputTests, Verdict
from rlpipe.sandbox.limits import Limits
from rlpipe.sandbox.pool import Batch, judge_all

__all__ = [
    "Batch",
    "CallTests",
    "Isolation",
    "Job",
    "Limits",
    "OutputTests",
    "SandboxError",
    "Verdict",
    "isolation",
    "judge_all",
]
