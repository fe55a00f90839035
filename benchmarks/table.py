"""The table in docs/performance.md, from results.json and machine.json.

python -m benchmarks.table
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.pairs import MACHINE, RESULTS
from benchmarks.texts import CHECKOUT

PAGE = CHECKOUT / "docs/performance.md"
BEGIN, END = "<!-- python -m benchmarks.table: begin -->", "<!-- python -m benchmarks.table: end -->"

# Name -> the ratio to reach; of memory, the share of the peer's.
TARGETS: Mapping[str, float] = {
    "GRPO step, default task, 0.9M": 1.5,
    "GRPO step, group shapes, 15.7M": 15,
    "GRPO step, group shapes, 15.7M, memory": 0.12,
    "GRPO step, group shapes, 15.7M, bf16": 10,
    "PPO step, group shapes, 15.7M": 15,
    "PPO step, group shapes, 15.7M, memory": 0.08,
    "DPO step, 32 pairs, 15.7M": 4,
    "DPO step, 32 pairs, 15.7M, memory": 0.4,
    "reward-model step, 32 pairs, 15.7M": 1.3,
    "SFT step, 32 rows, 15.7M, over padded": 3,
    "SFT step, 32 rows, 15.7M, over padded, memory": 0.4,
    "SFT step, 32 rows, 15.7M, over packed": 2.5,
    "SFT step, 32 rows, 15.7M, over packed, memory": 0.4,
    "SFT step, 32 rows, 15.7M, over one pack at a time": 2.5,
    "SFT step, 32 rows, 15.7M, over one pack at a time, memory": 0.4,
    "log-prob and entropy, 512 x 512 x 16384, a quarter real": 6,
    "generation, 15.7M, group shapes": 4.5,
    "LoRA GRPO step, 0.5B, 2 x 8, bf16": 8,
}


def table(results: Sequence[Mapping[str, Any]], machine: Mapping[str, str]) -> str:
    """Markdown: one row a result, those with a target first and in its order, then the others by name."""
    order = list(TARGETS)
    ranked = sorted(results, key=lambda r: (order.index(r["name"]) if r["name"] in order else len(order), r["name"]))
    lines = [
        "Measured on " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        "",
        "| work | ours | peer | peer over ours, median [least, most] | pairs | to reach |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(_row(result) for result in ranked)])


def _row(r: Mapping[str, Any]) -> str:
    ratio = f"{r['ratio']:.2f} [{r['ratio_min']:.2f}, {r['ratio_max']:.2f}]"
    target = TARGETS.get(r["name"])
    if target is None:
        goal = "–"
    elif r["unit"] == "s":
        goal = f"≥ {target:g}"
    else:
        goal = f"≥ {1 / target:.3g} (at most {target:g} of its memory)"
    unit = r["unit"]
    return f"| {r['name']} | {r['ours']:.3g} {unit} | {r['peer']:.3g} {unit} | {ratio} | {r['pairs']} | {goal} |"


def with_table(page: str, made: str) -> str:
    """The page with what stands between the markers replaced. Raises: ValueError if a marker is missing."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE.name} must hold {BEGIN!r} and behind it {END!r}: the table goes between them.")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def current() -> str:
    """The table of what has been measured last."""
    return table(json.loads(RESULTS.read_text()), json.loads(MACHINE.read_text()))


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text(), current()))
    print(f"{PAGE.relative_to(CHECKOUT)}: {len(json.loads(RESULTS.read_text()))} results")


if __name__ == "__main__":
    main()
