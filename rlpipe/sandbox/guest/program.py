"""The process that runs a whole program: its standard input is the test's, its standard output the answer."""

from __future__ import annotations

import os
import sys

from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.guest.start import announce, confine, steady


def main(limits: dict[str, int]) -> None:
    """Reads the program from standard input, leaves the rest of that to the program, and becomes it."""
    confine(limits)
    announce(1)
    source = wire.decode(wire.read_frame(0))
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
    program = type(sys)("__main__")
    sys.modules["__main__"] = program
    steady(source)
    exec(compile(source, "<solution>", "exec", dont_inherit=True), program.__dict__)
