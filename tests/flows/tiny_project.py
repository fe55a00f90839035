"""A tiny real DVC project whose stages do as they are told and leave a trace."""

from __future__ import annotations

import atexit
import functools
import logging
import subprocess
from contextlib import ExitStack
from pathlib import Path

import yaml

# A stage's word decides what it does, such as fail, hang until interrupted, hang and ignore that. `meetN` waits
# up to N seconds until two have started: both sides of the diamond, or this stage in two projects side by side.
_WORK = """\
import glob, os, signal, sys, time

def trace(event):
    with open("trace.txt", "a") as file:
        file.write(f"{event} {name} {time.monotonic()}\\n")

name, word, *sources = sys.argv[1:]
trace("start")
print(f"{name} says {word}")
if word == "fail":
    print(f"ConfigError: {name}.word={word!r}: no such word. Choose another.", file=sys.stderr)
    trace("end")
    sys.exit(1)
if word == "oom":
    os.kill(os.getpid(), signal.SIGKILL)
if word == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if word in ("hang", "deaf", "slow"):
    with open("pid.txt", "w") as file:
        file.write(str(os.getpid()))
if word in ("hang", "deaf"):
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        trace("interrupted")
        sys.exit(1)
if word == "slow":
    time.sleep(3)
if word.startswith("meet"):
    pair = ("left", "right") if name in ("left", "right") else (name,)
    until = time.monotonic() + int(word[4:])
    while time.monotonic() < until:
        lines = [line.split() for trace in glob.glob("../*/trace.txt") for line in open(trace)]
        if sum(line[0] == "start" and line[1] in pair for line in lines) == 2:
            break
        time.sleep(0.05)
if word == "meddle":
    with open("top.txt", "a") as file:
        file.write("meddled")
with open(f"{name}.txt", "w") as file:
    file.write(word[0] + "".join(open(source).read() for source in sources))
if name == "bottom":
    with open("bottom.json", "w") as file:
        file.write('{"rows": 3, "pass_at_1": 0.25}')
trace("end")
"""

_PIPELINE = """\
stages:
  top:
    cmd: python work.py top ${top.word}
    params: [top]
    deps: [work.py]
    outs: [top.txt]
  left:
    cmd: python work.py left ${left.word} top.txt
    params: [left]
    deps: [work.py, top.txt]
    outs: [left.txt]
  right:
    cmd: python work.py right ${right.word} top.txt
    params: [right]
    deps: [work.py, top.txt]
    outs: [right.txt]
  bottom:
    cmd: python work.py bottom ${bottom.word} left.txt right.txt
    params: [bottom]
    deps: [work.py, left.txt, right.txt]
    outs: [bottom.txt]
    metrics: [bottom.json]
  apart:
    cmd: python work.py apart ${apart.word}
    params: [apart]
    deps: [work.py]
    outs: [apart.txt]
"""

STAGES = ("top", "left", "right", "bottom", "apart")
FILES = {
    "work.py": _WORK,
    "dvc.yaml": _PIPELINE,
    "params.yaml": yaml.safe_dump({name: {"word": "calm"} for name in STAGES}),
    ".gitignore": "/trace.txt\n/pid.txt\n/.rlpipe/\n/runs/\n",
}


@functools.cache
def prefect_server() -> str:
    """The API of a temporary Prefect server with a database of its own: one for all tests of this process."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    import flows  # noqa: F401  (sets the environment before prefect is imported)

    stack = ExitStack()
    stack.enter_context(prefect_test_harness(server_startup_timeout=180))
    stack.callback(logging.disable)  # at exit, the streams that its last words would go to are closed
    atexit.register(stack.close)
    return str(get_current_settings().api.url)


def create(root: Path) -> Path:
    """Commit the project to `root`: `top`, then `left` and `right`, then `bottom`; and `apart`, alone."""
    from dvc.repo import Repo

    root.mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")
    git(root, "init", "--quiet", "--initial-branch", "main")
    Repo.init(str(root)).close()
    commit(root)
    return root


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    return subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "test")


def say(root: Path, **words: str) -> None:
    """Change the words of some stages in params.yaml."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, word in words.items():
        params[name]["word"] = word
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def traced(root: Path) -> dict[str, dict[str, float]]:
    """When each stage that ran started and ended, since the last call."""
    events: dict[str, dict[str, float]] = {}
    path = root / "trace.txt"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        event, name, when = line.split()
        events.setdefault(name, {})[event] = float(when)
    path.unlink(missing_ok=True)
    return events


def most_at_once(events: dict[str, dict[str, float]]) -> int:
    """How many stages ran at the same time at most."""
    moments = sorted((when, event == "start") for stage in events.values() for event, when in stage.items())
    running = most = 0
    for _, starts in moments:
        running += 1 if starts else -1
        most = max(most, running)
    return most
