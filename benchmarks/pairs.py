"""Two ways to the same numbers, timed in turn: A B A B …, so that whatever else the machine does meets both."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results.json"
MACHINE = Path(__file__).parent / "machine.json"


@dataclass(frozen=True)
class Result:
    """`ratio` is the median of the pairs' peer / ours: above 1, ours needs less. `unit` is that of ours and peer."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    ratio_min: float
    ratio_max: float
    pairs: int


def timed(
    name: str, ours: Callable[[], float], peer: Callable[[], float], pairs: int, *, warmed_up: bool = False
) -> Result:
    """Seconds of each side. A side returns its own seconds, so that setting up is not counted; the first of each is
    thrown away, unless both have worked before."""
    if not warmed_up:
        ours()
        peer()
    measured = []
    for _ in range(pairs):
        gc.collect()
        mine = ours()
        gc.collect()
        measured.append((mine, peer()))
    return result_of(name, "s", measured)


def peak_memory(name: str, ours: Callable[[], None], peer: Callable[[], None]) -> Result:
    """10^9 bytes that a side's process holds at its peak, beyond what it held before: one fresh process each. Where
    there is a GPU, the bytes are those of its memory.

    The sides must be importable functions that set up, call `from_here`, and work.
    """
    measured = [(_in_a_process(ours), _in_a_process(peer))]
    return result_of(name, "GB", measured)


def from_here() -> None:
    """What this process has held so far does not count for `peak_memory`."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # Writing 5 resets the peak to what is held now (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    os.environ["BENCHMARK_HELD_KB"] = str(_status_kb("VmRSS"))


def now() -> float:
    """Seconds on `time.perf_counter`'s clock, once a GPU has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def clock(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = now()
    work()
    return now() - began


def record(*results: Result) -> None:
    """Print, and keep in results.json, where a name has one entry; what they were measured on, in machine.json."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    names = {result.name for result in results}
    kept = [entry for entry in kept if entry["name"] not in names] + [asdict(result) for result in results]
    RESULTS.write_text(json.dumps(sorted(kept, key=lambda entry: entry["name"]), indent=1) + "\n")
    MACHINE.write_text(json.dumps(machine(), indent=1) + "\n")
    for r in results:
        print(
            f"{r.name}: ours {r.ours:.3g} {r.unit}, peer {r.peer:.3g} {r.unit}, "
            f"ratio {r.ratio:.2f} [{r.ratio_min:.2f}, {r.ratio_max:.2f}] of {r.pairs} pairs"
        )


def machine() -> dict[str, str]:
    """What figures depend on: cores, the instruction sets of matrix products, versions."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    found = {"cores": str(os.cpu_count()), "instructions": " ".join(sets) or "unknown"}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found | {name: version(name) for name in ("torch", "transformers", "trl")}


def result_of(name: str, unit: str, measured: list[tuple[float, float]]) -> Result:
    """Of pairs of what ours and the peer needed."""
    ratios = [peer / ours for ours, peer in measured]
    ours, peer = (statistics.median(side) for side in zip(*measured, strict=True))
    return Result(name, ours, peer, unit, statistics.median(ratios), min(ratios), max(ratios), len(measured))


def _in_a_process(side: Callable[[], None]) -> float:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(side, theirs))
    process.start()
    theirs.close()
    try:
        # A process that dies closes its end, which ends the wait.
        return float(mine.recv())
    except EOFError:
        raise RuntimeError(f"the process that measured {side} died: it may have run out of memory") from None
    finally:
        process.join()


def _measured(side: Callable[[], None], answer: Connection) -> None:
    os.environ["BENCHMARK_HELD_KB"] = "0"
    side()
    if torch.cuda.is_available():
        answer.send(torch.cuda.max_memory_allocated() / 1e9)
        return
    peak_kb = _status_kb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer.send((peak_kb - int(os.environ["BENCHMARK_HELD_KB"])) * 1024 / 1e9)


def _status_kb(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
