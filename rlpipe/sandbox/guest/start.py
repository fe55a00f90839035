"""How every guest begins: limits on itself, a private channel, and the word that it is ready."""

from __future__ import annotations

import os
import resource

from rlpipe.sandbox.guest.wire import READY, write_frame


def confine(limits: dict[str, int]) -> None:
    """Sets resource limits, by the names they have in `resource`; this process and what it starts can only lower them.

    They are set in here because RLIMIT_NPROC counts per user namespace, and this one has no other processes.
    """
    for name, bound in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def private_channel() -> tuple[int, int]:
    """(requests, replies): the standard descriptors moved away.

    In their place stands /dev/null, so that what the code prints goes nowhere and is no reply.
    """
    requests, replies = os.dup(0), os.dup(1)
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    return requests, replies


def announce(fd: int) -> None:
    """The sandbox stands; what goes wrong from here on is not the machine's doing."""
    os.environ.clear()
    write_frame(fd, READY)


def steady(source: str) -> None:
    """Where a source speaks of chance, the same chance every time."""
    if "random" in source:
        import random

        random.seed(0)
