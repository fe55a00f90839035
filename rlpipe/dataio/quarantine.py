"""Rows that cannot be used go to a file with their reason; too many of them stop the stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlpipe.dataio.files import write_rows
from rlpipe.dataio.records import REASONS, SPLITS, BadRow, Candidate, Reason, Record, Split, prompt_key
from rlpipe.errors import DataError


@dataclass(frozen=True)
class Sifted:
    """The usable records of each split, the rows that were not used, and how many rows there were."""

    records: dict[Split, list[Record]]
    quarantined: list[Candidate]
    rows_in: int

    @property
    def reasons(self) -> dict[Reason, int]:
        """Quarantined rows per reason, every reason named."""
        counts = Counter(row.bad.reason for row in self.quarantined if row.bad is not None)
        return {reason: counts[reason] for reason in REASONS}


def sift(candidates: Sequence[Candidate]) -> Sifted:
    """Part the usable rows from the others: rows in = rows used + rows quarantined.

    A row to learn from whose prompt is a held-out task is a leak: it is quarantined and the task is kept, so
    that the evaluation stays the same whatever is trained on. (Pairs are parted from the held-out prompts
    later, by `splits.split_pairs`.)
    """
    held = {prompt_key(c.uses["heldout"].prompt): c.row.id for c in candidates if "heldout" in c.uses}
    checked = [_without_leak(candidate, held) for candidate in candidates]
    records: dict[Split, list[Record]] = {split: [] for split in SPLITS}
    for kept in checked:
        if kept.bad is None:
            for split, record in kept.uses.items():
                records[split].append(record)
    quarantined = [candidate for candidate in checked if candidate.bad is not None]
    return Sifted(records, quarantined, len(candidates))


def write_quarantine(path: Path, sifted: Sifted) -> None:
    """Write one line a quarantined row: source, line, reason, detail and the row as read."""
    write_rows(path, (_line(candidate, candidate.bad) for candidate in sifted.quarantined if candidate.bad))


def check_rate(sifted: Sifted, max_rate: float, path: Path) -> None:
    """Stop when too many rows were quarantined. Call it after the quarantine file `path` is written.

    Raises: DataError naming the rate, the counts and the file if more than `max_rate` of the rows are in it.
    """
    rate = len(sifted.quarantined) / max(1, sifted.rows_in)
    if rate <= max_rate:
        return
    found = sifted.reasons.items()
    named = (f"{count} {reason} ({REASONS[reason]})" for reason, count in found if count)
    raise DataError(
        f"data.max_quarantine_rate={max_rate}: {len(sifted.quarantined)} of {sifted.rows_in} rows ("
        f"{rate:.1%}) cannot be used: {', '.join(named)}. Each row stands with its reason in {path}. "
        "Mend the rows, or raise the rate."
    )


def _without_leak(candidate: Candidate, held: dict[str, str]) -> Candidate:
    if candidate.bad is not None:
        return candidate
    for split in ("demonstrations", "tasks"):
        record = candidate.uses.get(split)
        if record is not None and prompt_key(record.prompt) in held:
            where = held[prompt_key(record.prompt)]
            return replace(candidate, uses={}, bad=BadRow("leak", f"the prompt is held out as {where}"))
    return candidate


def _line(candidate: Candidate, bad: BadRow) -> dict[str, Any]:
    row = candidate.row
    where = {"source": row.source, "line": row.line, "row": row.value}
    return where | {"reason": bad.reason, "detail": bad.detail}
