"""Every judgment on file, so that nothing is asked twice: one JSON line each, by the key of its content."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, get_args

from filelock import FileLock, Timeout

from rlpipe.rewards.judges.base import JudgeError

# What a judge made of a question. The rest (time-outs, limits, server errors) is no answer, and never filed.
Outcome = Literal["replied", "refused", "cut_off"]
_OUTCOMES = get_args(Outcome)

_SYNC_S = 0.1


@dataclass(frozen=True)
class Judgment:
    """One answer of a judge, as it came.

    Attributes:
        key: `content_key` of what was asked.
        model: who answered.
        template: digest of the template.
        outcome: `replied`, also where the reply is no verdict; `refused` where the judge would not judge;
            `cut_off` where a text of its own reached the token limit before its end.
        reply: its words, whole. What they are worth is read off by the template, every time.
        prompt_tokens, completion_tokens: as the server counted them; 0 where it did not.
        logps: nats by reply, where the judge compared them.
    """

    key: str
    model: str
    template: str
    outcome: Outcome
    reply: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logps: Mapping[str, float] | None = None


def content_key(model: str, parameters: Mapping[str, Any], template: str, texts: Sequence[str]) -> str:
    """SHA-256 over everything that an answer may depend on; `texts` in the order shown."""
    content = {"model": model, "parameters": dict(parameters), "template": template, "texts": list(texts)}
    plain = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


class Journal:
    """Judgments in a file that is only appended to while it is open.

    When `add` returns, the judgment survives the process; a loss of power costs at most those of the last _SYNC_S
    seconds, and none after `sync`. A process killed while it wrote leaves half a line: that one is dropped on
    opening (and counted in `dropped`), since the line feed is what makes a judgment filed. Closing sorts the file
    by key, so the same judgments give the same bytes whatever order the answers came in.

    Used as a context; one process at a time has a file.

    Args:
        path: the file to append to; made with its folder if there is none.
        known: further files of judgments, read and never written, such as one that DVC versions.
    Raises: JudgeError for a line that is no judgment, and where another process has the file.
    """

    def __init__(self, path: Path, known: Iterable[Path] = ()) -> None:
        self._path, self._known = path, tuple(known)
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._own: dict[str, Judgment] = {}
        self._lent: dict[str, Judgment] = {}
        self._file: BinaryIO | None = None
        self._synced_at = 0.0
        self.dropped = 0

    def __enter__(self) -> Journal:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JudgeError(
                f"{self._path}: another process writes its judgments there. Wait for it, or give this run a file of "
                "its own and name that one under `known`."
            ) from None
        try:
            self._lent = {key: one for path in self._known for key, one in read_judgments(path).items()}
            self._own = self._recovered() if self._path.exists() else {}
            self._file = self._path.open("ab")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None, "entered"
        try:
            self._file.close()
            write_judgments(self._path, self._own.values())
        finally:
            self._file = None
            self._lock.release()

    def get(self, key: str) -> Judgment | None:
        """What is on file; what was handed in as `known` comes first, since a result is a function of its inputs."""
        return self._lent.get(key) or self._own.get(key)

    def add(self, judgment: Judgment) -> None:
        """File a judgment."""
        assert self._file is not None, "only while open"
        assert self.get(judgment.key) is None, "asked twice"
        self._file.write(_line(judgment))
        self._file.flush()
        self._own[judgment.key] = judgment
        # One fsync takes about as long as a small judge's forward pass: one for several judgments, then.
        if time.monotonic() - self._synced_at > _SYNC_S:
            self.sync()

    def sync(self) -> None:
        """All that is filed survives a loss of power."""
        assert self._file is not None, "only while open"
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def _recovered(self) -> dict[str, Judgment]:
        """The filed judgments; the file is cut back to them."""
        whole = _whole_lines(self._path.read_bytes())
        if whole < self._path.stat().st_size:
            self.dropped = 1
            os.truncate(self._path, whole)
        return read_judgments(self._path)


def read_judgments(path: Path) -> dict[str, Judgment]:
    """Judgments by key. Where a key stands twice the first counts: it is the one that was used.

    Raises: JudgeError naming the file and line of anything else.
    """
    if not path.exists():
        raise JudgeError(f"{path}: no such file of judgments. Pull it (`dvc pull`), or take it out of `known`.")
    found: dict[str, Judgment] = {}
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        judgment = _parsed(line, f"{path}:{number}")
        found.setdefault(judgment.key, judgment)
    return found


def write_judgments(path: Path, judgments: Iterable[Judgment]) -> None:
    """Sorted by key, each once, the same bytes every time; the file is replaced whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    by_key = {judgment.key: judgment for judgment in judgments}
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.writelines(_line(by_key[key]) for key in sorted(by_key))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _line(judgment: Judgment) -> bytes:
    # ASCII alone, so that a line separator of Unicode, or half a surrogate pair, in a reply stays inside its line.
    return json.dumps(asdict(judgment), sort_keys=True).encode() + b"\n"


def _whole_lines(content: bytes) -> int:
    """How many bytes of a file hold whole judgments: all but a last line that was cut off while it was written."""
    end = content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    # A loss of power may keep a line's length and lose its bytes.
    return end if end == 0 or _is_json(content[last:end]) else last


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parsed(line: bytes, where: str) -> Judgment:
    names = {field.name for field in fields(Judgment)}
    try:
        value = json.loads(line)
        whole = isinstance(value, dict) and set(value) == names and value["outcome"] in _OUTCOMES
    except ValueError:
        whole = False
    if not whole:
        raise JudgeError(
            f"{where}: no judgment (a JSON object with {sorted(names)}). Delete the line: it is asked anew."
        )
    return Judgment(**value)
