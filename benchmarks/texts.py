"""Real text where it is at hand, otherwise this project's own pages.

GSM8K and `rasbt_instruct` are looked for in the folder that RLPIPE_BENCHMARK_DATA names, by default
`../shared/realdata` beside the checkout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("RLPIPE_BENCHMARK_DATA", CHECKOUT / "../shared/realdata"))
GSM8K = FOLDER / "gsm8k/train.jsonl"
PREFERENCES = FOLDER / "rasbt_instruct/instruction-data-with-preference.json"


def questions() -> tuple[str, list[tuple[str, str]]]:
    """Where the text is from, and (question, answer) pairs."""
    if GSM8K.is_file():
        rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
        return "gsm8k", [(row["question"], row["answer"]) for row in rows]
    lines = _own()
    return "this project's pages", list(zip(lines[::2], lines[1::2], strict=False))


def preferences() -> tuple[str, list[tuple[str, str, str]]]:
    """Where the text is from, and (prompt, chosen, rejected) triples whose two responses differ."""
    if PREFERENCES.is_file():
        rows = json.loads(PREFERENCES.read_text())
        asked = [(f"{row['instruction']}\n{row['input']}".strip(), row["chosen"], row["rejected"]) for row in rows]
        return "rasbt_instruct", [row for row in asked if row[1] != row[2]]
    lines = _own()
    return "this project's pages", list(zip(lines[::3], lines[1::3], lines[2::3], strict=False))


def _own() -> list[str]:
    """The longer lines of the documentation, each once."""
    pages = sorted([CHECKOUT / "README.md", *(CHECKOUT / "docs").glob("*.md")])
    lines = [line.strip() for page in pages for line in page.read_text().splitlines()]
    return list(dict.fromkeys(line for line in lines if len(line) > 80))
