"""What this machine offers, tried before anything is run; without the whole of it, nothing is run."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

from rlpipe.sandbox.errors import GuestFault, MachineFault, SandboxError
from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.guests import Guest, Level
from rlpipe.sandbox.limits import Limits

_REMEDY = (
    "Install it (apt install bubblewrap) and allow unprivileged user namespaces: on Ubuntu 24.04 by an AppArmor "
    "profile for bwrap or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, in Docker by `--security-opt "
    "seccomp=unconfined --security-opt apparmor=unconfined`. Only for programs that you trust: `unsafe: true` runs "
    "them as you, with limits on CPU, memory and file size and nothing else"
)


@dataclass(frozen=True)
class Isolation:
    """How programs are kept apart from the machine.

    Attributes:
        level: `bubblewrap`, which is all of docs/sandbox.md; or `process`, a process with resource limits, that can
            read and write what the user can.
        why: why it is not `bubblewrap`; empty where it is.
    """

    level: Level
    why: str = ""


# What the probe tries to read: on every host, and outside of all that a sandbox shows for another reason.
HOST_FILE = "/etc/passwd"


@functools.cache
def isolation(*, unsafe: bool = False) -> Isolation:
    """The isolation of this machine, once a process has tried to break it from inside.

    Raises: SandboxError where the sandbox does not come up or leaves a hole, unless `unsafe`.
    """
    try:
        holes = _holes(Limits())
        if holes:
            raise SandboxError(f"the sandbox of bubblewrap does not hold here: {'; '.join(holes)}. {_REMEDY}.")
    except (MachineFault, GuestFault, SandboxError) as error:
        if unsafe:
            return Isolation("process", str(error))
        if isinstance(error, SandboxError):
            raise
        raise SandboxError(f"no program can be isolated here: {error}. {_REMEDY}.") from error
    return Isolation("bubblewrap")


def _holes(limits: Limits) -> list[str]:
    """What a guest could do that it must not."""
    with Guest("probe", "bubblewrap", limits, host_file=HOST_FILE) as guest:
        guest.ready()
        holes: list[str] = wire.decode(guest.receive(time.monotonic() + limits.wall_s, 1 << 16))
        return holes
