"""What can go wrong with a sandbox itself."""

from __future__ import annotations

from rlpipe.errors import RlpipeError


class SandboxError(RlpipeError):
    """This machine cannot isolate a program as it must be; says what is missing and what to do."""


class MachineFault(Exception):  # noqa: N818 - a fault, not an error of the user's
    """A sandbox did not come up: the machine's doing, never the program's in it."""


class GuestFault(Exception):  # noqa: N818
    """A guest ended, ran out of time, or said what it must not; the message says which."""
