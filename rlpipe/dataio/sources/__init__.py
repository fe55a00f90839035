"""Where rows come from: one file a source, one line each in SOURCES."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rlpipe.config.schema import Data
from rlpipe.dataio.raw import Tables
from rlpipe.dataio.records import Candidate
from rlpipe.dataio.sources.arithmetic import arithmetic
from rlpipe.dataio.sources.gsm8k import gsm8k
from rlpipe.dataio.sources.instruct import instruct
from rlpipe.dataio.sources.rows import rows

# A source turns every row of its tables into one candidate: what the row is used for, or why it is not used.
Source = Callable[[Data, Tables, int], Sequence[Candidate]]

SOURCES: Mapping[str, Source] = {
    "arithmetic": arithmetic,
    "gsm8k": gsm8k,
    "instruct": instruct,
    "rows": rows,
}
