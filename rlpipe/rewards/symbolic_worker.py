"""Compares expressions by math-verify, in a process of its own: run by `symbolic.py`, never imported.

The argument is the seconds of processor time that a comparison may take.

A line of JSON comes in, `{"gold": text, "answer": text or null}`; a line goes out, `{"readable": bool, "equal": bool}`.
The first line out is empty: ready. A comparison that needs too much is ended by the kernel together with this
process; who started it starts another.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

from math_verify import parse, verify
from math_verify.parser import LatexExtractionConfig

MEMORY_BYTES = 2 * 1024**3
# Beyond the decimals that anyone writes, so that 0.7071 is not the root of 1/2.
DECIMALS, DIGITS = 12, 30

_BOXED = (LatexExtractionConfig(boxed_match_priority=0),)


def read(text: str) -> list:
    """At most one expression. The library's own timeout is off: it works by SIGALRM, which C code does not heed."""
    return parse(
        f"\\boxed{{{text}}}",
        extraction_config=_BOXED,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )[:1]


def compared(gold: str, answer: str | None) -> dict[str, bool]:
    """Whether the gold expression can be read, and whether the answer is the same."""
    wanted = read(gold)
    given = [] if answer is None or not wanted else read(answer)
    equal = bool(given) and verify(
        wanted, given, float_rounding=DECIMALS, numeric_precision=DIGITS, timeout_seconds=None
    )
    return {"readable": bool(wanted), "equal": equal}


def main(cpu_s: float) -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # An interrupt is for who started this process; it ends when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    print(flush=True)
    for line in sys.stdin:
        # Counts processor time, whatever else the machine does; unheeded, SIGPROF ends the process, in C code too.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            reply = compared(**json.loads(line))
        except (MemoryError, RecursionError):
            reply = {"readable": False, "equal": False}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
