"""All benchmarks, one after the other, each in a process of its own: what one breaks, the others do not feel.

    python -m benchmarks.all            # the shorter ones, with fewer pairs
    python -m benchmarks.all --full     # everything but the LoRA one, 5 pairs each: more than an hour
    python -m benchmarks.all --full --long

Results are written as each ends; the table in docs/performance.md follows at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.texts import CHECKOUT


@dataclass(frozen=True)
class Job:
    """A benchmark's command line, and the seconds that it may take."""

    words: tuple[str, ...]
    limit_s: int


QUICK = (
    Job(("generation", "--pairs", "3"), 300),
    Job(("head",), 120),
    Job(("grpo", "default"), 120),
    Job(("dpo", "--pairs", "3"), 300),
    Job(("reward_model",), 180),
    Job(("sft", "packed", "--pairs", "2"), 600),
    Job(("grpo", "group", "--pairs", "1"), 900),
)
FULL = (
    Job(("generation",), 900),
    Job(("head", "--pairs", "61"), 300),
    Job(("shared_prompts",), 900),
    Job(("grpo", "default", "--pairs", "15"), 600),
    Job(("dpo",), 1200),
    Job(("reward_model",), 900),
    Job(("sft",), 2400),
    Job(("grpo", "group"), 3600),
    Job(("grpo", "bf16"), 5400),
    Job(("ppo",), 3600),
    Job(("profile",), 1200),
)
LONG = (Job(("lora", "--long"), 3 * 3600),)


def run(jobs: Sequence[Job]) -> list[str]:
    """Returns: a line for each job that failed."""
    failed = []
    for job in jobs:
        began, command = time.monotonic(), " ".join(job.words)
        print(f"== {command} ==", flush=True)
        try:
            code = subprocess.run(
                [sys.executable, "-m", f"benchmarks.{job.words[0]}", *job.words[1:]], cwd=CHECKOUT, timeout=job.limit_s
            ).returncode
        except subprocess.TimeoutExpired:
            failed.append(f"{command}: not done after {job.limit_s} s")
            continue
        if code:
            failed.append(f"{command}: exit status {code}")
        print(f"== {command}: {time.monotonic() - began:.0f} s ==", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("--full", action="store_true", help="all of them, with 5 pairs or more")
    parser.add_argument("--long", action="store_true", help="also the 0.5B one, which is slow without AMX")
    given = parser.parse_args()
    failed = run([*(FULL if given.full else QUICK), *(LONG if given.long else ()), Job(("table",), 60)])
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
