"""Read or generate rows, quarantine bad ones, part the splits, train the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rlpipe.config.schema import Data, Scratch
from rlpipe.dataio import prepared
from rlpipe.dataio.files import write_metrics, write_rows
from rlpipe.dataio.quarantine import Sifted, check_rate, sift, write_quarantine
from rlpipe.dataio.raw import FileTables, HubTables, Tables
from rlpipe.dataio.records import SPLITS, Record, Split, prompt_key
from rlpipe.dataio.sources import SOURCES
from rlpipe.errors import DataError
from rlpipe.types import Demonstration, Preference

if TYPE_CHECKING:
    from rlpipe.stages.base import Stage

_FILES: dict[Split, str] = {
    "demonstrations": prepared.DEMONSTRATIONS,
    "tasks": prepared.TASKS,
    "heldout": prepared.HELDOUT,
    "preferences": prepared.PREFERENCES,
}
_LEARNT: tuple[Split, ...] = ("demonstrations", "tasks")
_NEEDED: tuple[Split, ...] = (*_LEARNT, "heldout")


def run(stage: Stage) -> None:
    """Write `data/prepared` and `metrics/prepare.json`.

    Raises: DataError if the input is missing, too much of it is unusable, or a needed split is empty;
        ConfigError if the tokenizer does not fit its vocabulary.
    """
    data, model = stage.params.data, stage.params.model
    sifted = sift(SOURCES[data.source](data, _tables(data, stage.root), data.seed))
    # Written before anything can fail, so that the reasons outlive the failure.
    write_quarantine(stage.path(prepared.QUARANTINE), sifted)
    check_rate(sifted, data.max_quarantine_rate, stage.path(prepared.QUARANTINE))
    _check_splits(sifted, data.source)
    for split, file in _FILES.items():
        write_rows(stage.path(file), sifted.records[split])
    if model.name_or_path is None:
        _write_tokenizer(stage.path(prepared.TOKENIZER), sifted, model.scratch)
    metrics = _metrics(sifted)
    write_metrics(stage.path("metrics/prepare.json"), metrics)
    stage.tracker.summary({f"data/{name}": metrics[name] for name in ("rows_in", "rows_kept", "rows_quarantined")})


def _tables(data: Data, root: Path) -> Tables:
    return FileTables(root / data.path) if data.hub is None else HubTables(data.hub)


def _check_splits(sifted: Sifted, source: str) -> None:
    for split in _NEEDED:
        if not sifted.records[split]:
            raise DataError(
                f"data.source={source}: no usable row is left for {split}, and a run needs some. "
                f"{len(sifted.quarantined)} of {sifted.rows_in} rows were quarantined; add rows."
            )
    held = _prompts(sifted.records["heldout"])
    for split in _LEARNT:
        assert held.isdisjoint(_prompts(sifted.records[split])), f"a held-out prompt is left in {split}"


def _prompts(records: list[Record]) -> set[str]:
    return {prompt_key(record.prompt) for record in records}


def _write_tokenizer(folder: Path, sifted: Sifted, scratch: Scratch) -> None:
    # transformers takes seconds to import: not before the rows are known to be good.
    from rlpipe.dataio.tokenizers import KINDS

    KINDS[scratch.tokenizer](_learnable_texts(sifted), scratch.vocab_size).save_pretrained(folder)


def _learnable_texts(sifted: Sifted) -> Iterator[str]:
    """The texts a tokenizer may know: those whose prompt is not held out."""
    held = _prompts(sifted.records["heldout"])
    for split in SPLITS:
        for record in sifted.records[split]:
            if prompt_key(record.prompt) in held:
                continue
            yield record.prompt
            if isinstance(record, Demonstration):
                yield record.response
            elif isinstance(record, Preference):
                yield record.chosen
                yield record.rejected


def _metrics(sifted: Sifted) -> dict[str, int]:
    return {
        "rows_in": sifted.rows_in,
        "rows_kept": sifted.rows_in - len(sifted.quarantined),
        "rows_quarantined": len(sifted.quarantined),
        **{f"split/{split}": len(records) for split, records in sifted.records.items()},
        **{f"quarantine/{reason}": count for reason, count in sifted.reasons.items()},
    }
