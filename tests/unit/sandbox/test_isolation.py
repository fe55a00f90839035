"""The probe sees every hole, and without a whole sandbox nothing runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlpipe.sandbox import CallTests, Isolation, Limits, OutputTests, SandboxError, bubblewrap, guests, judge_all
from rlpipe.sandbox.isolation import HOST_FILE, _holes, isolation

ADD = CallTests(("def add(a, b): return a + b",), ("assert add(1, 2) == 3",))
WEAK = Isolation("process", "a test")
Words = list[str]


@pytest.fixture
def fresh() -> Iterator[None]:
    """`isolation` asks the machine again, now and after the test."""
    isolation.cache_clear()
    yield
    isolation.cache_clear()


def without(words: Words, *dropped: str) -> Words:
    """`words` without the run of words `dropped`."""
    at = next(at for at in range(len(words)) if tuple(words[at : at + len(dropped)]) == dropped)
    return words[:at] + words[at + len(dropped) :]


def with_mount(words: Words, *mount: str) -> Words:
    """`words` with one mount more, before the root becomes read-only."""
    at = len(words) - 1 - words[::-1].index("--remount-ro")
    return [*words[:at], *mount, *words[at:]]


WEAKENED: dict[str, Callable[[Words], Words]] = {
    "/dev can be written": lambda words: without(words, "--remount-ro", "/dev"),
    "/ can be written": lambda words: without(words, "--remount-ro", "/"),
    "/proc can be read": lambda words: with_mount(words, "--ro-bind", "/proc", "/proc"),
    "the host's files can be read": lambda words: with_mount(words, "--ro-bind", HOST_FILE, HOST_FILE),
    "the environment holds LANG": lambda words: with_mount(words, "--setenv", "LANG", "C"),
}


def test_nothing_is_found_in_the_sandbox(isolated: Isolation) -> None:
    assert isolated == Isolation("bubblewrap", "")
    assert _holes(Limits()) == []


@pytest.mark.parametrize("hole", WEAKENED)
def test_each_weakening_is_found(hole: str, isolated: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bubblewrap.command
    monkeypatch.setattr(bubblewrap, "command", lambda *a, **k: WEAKENED[hole](whole(*a, **k)))
    assert hole in _holes(Limits())


def test_a_missing_filter_is_found(isolated: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    """One instruction, `return allow`: sockets, and processes."""
    monkeypatch.setattr(guests, "_filter", lambda _: b"\x06\x00\x00\x00\x00\x00\xff\x7f")
    assert {"sockets can be made", "processes can be started"} <= set(_holes(Limits()))


@pytest.mark.parametrize(
    ("limit", "hole"),
    [
        ("RLIMIT_AS", "memory is not limited"),
        ("RLIMIT_FSIZE", "the size of a file is not limited"),
        ("RLIMIT_NPROC", "the number of threads is not limited"),
    ],
)
def test_a_missing_limit_is_found(limit: str, hole: str, isolated: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is told of the limit, and its process is held to one eight times as large."""
    source = (Path(guests.__file__).parent / "guest/probe.py").read_text()
    lax = source.replace("confine(limits)", f"confine({{**limits, {limit!r}: 8 * limits[{limit!r}]}})")
    assert lax != source
    *others, (name, _) = guests._modules("probe")
    monkeypatch.setattr(guests, "_modules", lambda _: (*others, (name, compile(lax, "<probe>", "exec"))))
    assert _holes(Limits()) == [hole]


def test_without_bubblewrap_nothing_runs(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="bwrap is not installed"):
        isolation()


def test_a_sandbox_that_does_not_come_up_says_what_bwrap_said(
    fresh: None, isolated: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bubblewrap.command
    monkeypatch.setattr(
        bubblewrap, "command", lambda *a, **k: with_mount(whole(*a, **k), "--ro-bind", "/no/such/folder", "/x")
    )
    with pytest.raises(SandboxError, match=r"(?s)/no/such/folder.*user namespaces.*unsafe: true"):
        isolation()


def test_weaker_isolation_only_when_asked_for_and_never_unsaid(
    fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    weak = isolation(unsafe=True)
    assert weak.level == "process"
    assert "bwrap is not installed" in weak.why
    (verdict,) = judge_all([ADD], weak, Limits(), workers=1).verdicts
    assert (verdict.passed, verdict.isolation) == (True, "process")


def test_a_plain_process_is_killed_as_well(tmp_path: Path) -> None:
    """Unsafe or not, what sleeps past its time is gone when the verdict is there."""
    source = f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    began = time.monotonic()
    (verdict,) = judge_all([OutputTests(source, (("", "1"),))], WEAK, Limits(wall_s=1.0), workers=1).verdicts
    assert time.monotonic() - began < 20
    assert (verdict.passed, verdict.reason) == (False, "test 1 of 1: out of time")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_unsafe_takes_the_sandbox_where_there_is_one(isolated: Isolation) -> None:
    assert isolation(unsafe=True) == isolated


def test_root_shows_what_only_root_can_reach_at_another_place(tmp_path: Path) -> None:
    """A file below a folder of mode 700 is no use to the account that bwrap runs under."""
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    for folder, mode in ((closed, 0o700), (opened, 0o755)):
        folder.mkdir()
        (folder / "file").touch()
        folder.chmod(mode)
    assert bubblewrap._open_to_all(Path("/usr/bin/env"))
    assert not bubblewrap._open_to_all(closed / "file")


def test_the_runtime_is_the_interpreter_and_no_packages() -> None:
    runtime = bubblewrap.this_runtime()
    assert runtime.python.name.startswith("python3")
    assert Path(os.__file__).resolve().is_relative_to(next(p for p in runtime.shown if p in Path(os.__file__).parents))
    assert all(path.name in ("site-packages", "dist-packages") for path in runtime.hidden)
    assert not any(
        path in (Path("/"), Path("/usr"), Path("/etc"), Path("/root"), Path.home()) for path in runtime.shown
    )
