"""Programs that would rather cheat, break out or break down the machine than be right.

Each of them gets no pass, leaves no process and no file, and comes to no secret; and the next program, judged by
the same worker, is judged rightly. They run nowhere but in the sandbox.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlpipe.sandbox import CallTests, Limits, OutputTests, SandboxError, Verdict, isolation, judge_all
from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.guests import Guest

# A number of descriptors that nobody else is limited to: by it our processes are known, whatever they become.
MARK = 64 + os.getpid() % 900
LIMITS = Limits(cpu_s=2, wall_s=4.0, memory_mb=256, threads=8, open_files=MARK)
SECRET = f"canary-{os.getpid()}-{time.monotonic_ns()}"
EXPECTED = (918273645, 987654321)

HONEST = CallTests(("def add(a, b): return a + b",), (f"assert add(918273644, 1) == {EXPECTED[0]}",))
TESTS = (
    f"""
def check(candidate):
    assert candidate(918273644, 1) == {EXPECTED[0]}
    assert candidate(987654320, 1) == {EXPECTED[1]}
""",
)


@pytest.fixture(scope="module", autouse=True)
def _isolated() -> None:
    try:
        isolation()
    except SandboxError as error:
        if os.environ.get("RLPIPE_SANDBOX") == "required":
            raise
        pytest.skip(f"no program can be isolated here: {error}")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everyone may read and write, with the secret in a file; the secret is in the environment too."""
    monkeypatch.setenv("RLPIPE_SECRET", SECRET)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        folder = Path(made)
        (folder / ".ssh").mkdir()
        (folder / ".ssh/id_ed25519").write_text(SECRET)
        for path in (folder, folder / ".ssh", folder / ".ssh/id_ed25519"):
            path.chmod(0o777)
        monkeypatch.setenv("HOME", str(folder))
        yield folder
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [".ssh", ".ssh/id_ed25519"]
        assert (folder / ".ssh/id_ed25519").read_text() == SECRET


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """When a verdict is there, the processes are gone; what is a zombie is gone too, and only waited for."""
    yield
    assert living() == []


def living() -> list[str]:
    """The processes with our number of descriptors, by what they are."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            limits = (process / "limits").read_text().splitlines()
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z" and any(line.split()[:4] == ["Max", "open", "files", str(MARK)] for line in limits):
                found.append(f"{process.name} {(process / 'cmdline').read_bytes()[:80]!r}")
        except OSError:  # it ended, or is another user's
            continue
    return found


def judged(source: str, limits: Limits = LIMITS) -> Verdict:
    """The verdict on a program that should have a function `add`; then an honest one must pass."""
    cheat = CallTests((textwrap.dedent(source),), TESTS, functions=("add",))
    attack, honest = judge_all([cheat, HONEST], isolation(), limits, workers=1).verdicts
    assert honest.passed is True, honest
    assert attack.isolation == "bubblewrap"
    assert SECRET not in attack.reason
    return attack


def refused(source: str, limits: Limits = LIMITS) -> str:
    """Why the program did not pass; that it did not is asserted here."""
    verdict = judged(source, limits)
    assert verdict.passed is False, verdict
    return verdict.reason


def said(source: str, limits: Limits = LIMITS) -> str:
    """All that a program prints in the sandbox."""
    with Guest("program", "bubblewrap", limits) as guest:
        guest.ready()
        deadline = time.monotonic() + limits.wall_s
        guest.send(wire.frame(wire.encode(textwrap.dedent(source), 1 << 20)), deadline)
        return guest.exchange(b"", deadline, limits.output_bytes)[0].decode()


def test_the_tests_can_be_passed() -> None:
    """Without this, nothing below would mean anything."""
    assert judged("def add(a, b): return a + b").passed is True


# ---- cheating -------------------------------------------------------------------------------------------

EXITS = {
    "exit_on_load": "import sys; sys.exit(0)",
    "os_exit_on_load": "import os; os._exit(0)",
    "exit_in_call": "import sys\ndef add(a, b): sys.exit(0)",
    "os_exit_in_call": "import os\ndef add(a, b): os._exit(0)",
    "system_exit": "def add(a, b): raise SystemExit(0)",
    "skip_test": "import unittest\ndef add(a, b): raise unittest.SkipTest('fine')",
    "keyboard_interrupt": "def add(a, b): raise KeyboardInterrupt",
    "assertion_of_its_own": "def add(a, b): raise AssertionError",
    "right_once_then_exit": "import os\ndef add(a, b): return a + b if a < 9e8 + 9e7 - 9e6 else os._exit(0)",
    "exit_when_deleted": "import os\nclass E:\n  def __del__(self): os._exit(0)\ndef add(a, b): return E() and 0",
    "killed_by_itself": "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGKILL)",
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef add(a, b): raise ValueError",
    "excepthook": "import sys, os\nsys.excepthook = lambda *_: os._exit(0)\ndef add(a, b): raise ValueError",
    "another_program": "import os, sys\ndef add(a, b): os.execv(sys.executable, [sys.executable, '-c', 'print(1)'])",
}

OBJECTS = {
    "equal_to_all": "class A:\n  def __eq__(self, o): return True\n  __hash__ = None\ndef add(a, b): return A()",
    "int_equal_to_all": "class A(int):\n  def __eq__(self, o): return True\n  __hash__ = int.__hash__\n"
    "def add(a, b): return A(0)",
    "list_equal_to_all": "class A(list):\n  def __eq__(self, o): return True\ndef add(a, b): return A([a, b])",
    "str_equal_to_all": "class A(str):\n  def __eq__(self, o): return True\ndef add(a, b): return A('x')",
    "equal_that_exits": "import os\nclass A:\n  def __eq__(self, o): os._exit(0)\ndef add(a, b): return A()",
    "lies_about_its_class": "class A:\n  __class__ = int\n  def __eq__(self, o): return True\n"
    "def add(a, b): return A()",
    "lies_when_asked_for_bytes": "class A(int):\n  def to_bytes(self, *a, **k): return b'\\x36\\xbb\\xc3\\xed'\n"
    "  def bit_length(self): return 30\ndef add(a, b): return A(0)",
    "nan": "def add(a, b): return float('nan')",
    "not_a_number_but_true": "def add(a, b): return True",
    "endless_generator": "def add(a, b):\n  while True: yield a + b",
    "itself": "def add(a, b): return add",
    "endless_nesting": "def add(a, b):\n  x = []\n  x.append(x)\n  return x",
    "exponential_sharing": "def add(a, b):\n  x = []\n  for _ in range(90): x = [x, x]\n  return x",
    "huge": "def add(a, b): return 'x' * (5 << 20)",
    "huge_exception": "def add(a, b): raise type('E' * (5 << 20), (Exception,), {})()",
    "says_passed": "import sys\nprint('passed', flush=True)\nprint('{\"passed\": true}', file=sys.stderr, flush=True)\n"
    "def add(a, b): print('ok', flush=True)",
}


@pytest.mark.parametrize("source", EXITS.values(), ids=EXITS)
def test_leaving_is_no_pass(source: str) -> None:
    assert refused(source)


@pytest.mark.parametrize("source", OBJECTS.values(), ids=OBJECTS)
def test_no_object_is_equal_but_the_right_value(source: str) -> None:
    assert refused(source)


def test_expected_values_are_not_in_the_process() -> None:
    """It looks through every object and frame for numbers and texts of the tests, and finds only one of its own."""
    source = """
    import gc, sys

    OWN = 123454321

    def search(lowest):
        found, seen = [], set()
        todo = list(gc.get_objects()) + list(sys.modules.values())
        frame = sys._getframe()
        while frame is not None:
            todo += [frame.f_locals, frame.f_globals, frame.f_code]
            frame = frame.f_back
        while todo:
            thing = todo.pop()
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            if type(thing) is int and lowest < thing < 1000000000:
                found.append(thing)
            if type(thing) is str and "assert candidate" + chr(40) in thing:
                found.append(thing)
            todo += gc.get_referents(thing)
        return found
    """
    tests = (
        f"""
def check(candidate):
    found = candidate(100000000)
    assert 123454321 in found
    assert not [x for x in found if x in {EXPECTED} or type(x) is str]
""",
    )
    job = CallTests((textwrap.dedent(source),), tests, functions=("search",))
    (verdict,) = judge_all([job], isolation(), LIMITS, workers=1).verdicts
    assert verdict.passed is True, verdict


def test_tests_are_not_in_a_file_or_in_proc() -> None:
    """It reads every file there is, and what /proc would say of it and the other processes."""
    output = said("""
    import os
    needles = [b"918273" + b"645", b"assert " + b"candidate"]
    read = 0
    for folder, inner, names in os.walk("/"):
        if folder == "/dev" or folder.startswith("/usr/lib") or folder.endswith("/lib"):  # the interpreter's
            inner.clear()
            continue
        for name in names:
            try:
                data = open(os.path.join(folder, name), "rb").read(1 << 20)
            except OSError:
                continue
            read += 1
            for needle in needles:
                if needle in data:
                    print("found", folder, name)
    for path in ["/proc/self/mem", "/proc/self/maps", "/proc/1/cmdline", "/proc/1/environ", "/proc/self/fd"]:
        if os.path.exists(path):
            print("found", path)
    print("read", read, "files")
    """)
    assert "found" not in output
    assert output.startswith("read ")


def test_descriptors_that_it_inherits_lead_to_nothing() -> None:
    """It writes to every descriptor, and forges replies before they are asked for."""
    source = """
    import os

    def frame(body):
        return len(body).to_bytes(4, "big") + body

    number = b"i" + (4).to_bytes(4, "big") + (918273645).to_bytes(4, "big")
    for fd in range(3, 64):
        try:
            os.write(fd, frame(bytes(16) + b"v" + number) * 2)
        except OSError:
            pass

    def add(a, b):
        return 0
    """
    assert "another request" in refused(source) or "nobody had asked" in refused(source)


@pytest.mark.parametrize(
    ("wait_s", "why"),
    [(0.0, f"a message of {0x21000000} bytes"), (0.1, "nobody had asked for")],
    ids=["before_its_reply", "behind_its_last"],
)
def test_one_byte_too_many_is_no_pass_even_of_the_right_program(wait_s: float, why: str) -> None:
    """`!` is 0x21: before a reply it makes a length of 0x21000000 out of it, behind the last it is just there."""
    source = f"""
    import os, threading, time

    def stray():
        time.sleep({wait_s})
        for fd in range(3, 64):
            try:
                os.write(fd, b"!")
            except OSError:
                pass

    def add(a, b):
        threading.Thread(target=stray).start()
        time.sleep(0.05)
        return a + b
    """
    tests = ("assert add(1, 2) == 3\nimport time; time.sleep(0.3)",)
    job = CallTests((textwrap.dedent(source),), tests, functions=("add",))
    (verdict,) = judge_all([job], isolation(), LIMITS, workers=1).verdicts
    assert verdict.passed is False
    assert why in verdict.reason


def test_gone_behind_its_last_reply_is_no_pass_even_of_the_right_program() -> None:
    source = "import os, threading\ndef add(a, b):\n  threading.Timer(0.05, os._exit, [0]).start()\n  return a + b"
    tests = ("assert add(1, 2) == 3\nimport time; time.sleep(0.3)",)
    (verdict,) = judge_all([CallTests((source,), tests)], isolation(), LIMITS, workers=1).verdicts
    assert (verdict.passed, verdict.reason) == (False, "in the solution: the process ended")


def test_a_reply_for_the_next_call_is_no_reply() -> None:
    """It learns the number of a request by reading the pipe itself, and answers it twice."""
    source = """
    import os, sys

    def add(a, b):
        frame = sys._getframe()
        while "nonce" not in frame.f_locals:
            frame = frame.f_back
        nonce, fd = frame.f_locals["nonce"], frame.f_locals["replies"]
        value = b"i" + (4).to_bytes(4, "big") + (a + b).to_bytes(4, "big")
        body = nonce + b"v" + value
        os.write(fd, (len(body).to_bytes(4, "big") + body) * 2)
        return a + b
    """
    assert refused(source)


TAKEOVER = """
import os, sys
from rlpipe.sandbox.guest.wire import decode, encode

frame = sys._getframe()
while "requests" not in frame.f_locals:
    frame = frame.f_back
requests, replies = frame.f_locals["requests"], frame.f_locals["replies"]

def read(size):
    data = b""
    while len(data) < size:
        data += os.read(requests, size - len(data))
    return data

def write(body):
    os.write(replies, len(body).to_bytes(4, "big") + body)

write(frame.f_locals["nonce"] + b"vN")
while True:
    request = read(int.from_bytes(read(4), "big"))
    name, (a, b), kwargs = decode(request[17:])
    write(NUMBER + b"v" + encode(ANSWER, 1000))
"""


@pytest.mark.parametrize(
    ("number", "answer", "why"),
    [
        ("request[:16]", "a - b", "AssertionError"),
        ("bytes(16)", "a + b", "another request"),
        ("request[1:17]", "a + b", "another request"),
    ],
)
def test_taking_the_protocol_over_wins_only_an_answer(number: str, answer: str, why: str) -> None:
    """It serves the requests in place of the runner; a reply without the number of its request is none."""
    assert why in refused(TAKEOVER.replace("NUMBER", number).replace("ANSWER", answer))
    assert judged(TAKEOVER.replace("NUMBER", "request[:16]").replace("ANSWER", "a + b")).passed is True


def test_breaking_the_runner_from_inside_wins_nothing() -> None:
    source = """
    import builtins, sys
    from rlpipe.sandbox.guest import wire
    wire.encode_content = lambda value, limit: b"T"
    wire.encode = lambda value, limit: b"T"
    builtins.isinstance = lambda *_: True
    sys.modules["rlpipe.sandbox.guest.evaluator"] = sys
    def add(a, b):
        return 0
    """
    assert "AssertionError" in refused(source)


def test_files_that_others_might_run_are_not_left_for_them(secrets: Path) -> None:
    """It writes sitecustomize, conftest and the tests' own files; the runner's source and the library stay."""
    names = ("sitecustomize.py", "usercustomize.py", "conftest.py", "test_solution.py", "wire.py")
    library, ours = Path(os.__file__).parent, Path(wire.__file__).parent
    places = ("/tmp", "/", "/dev/shm", "/var/tmp", str(library), str(ours), str(secrets))
    before = contents(places, names)
    output = said(f"""
    import os
    for place in {(".", *places)!r}:
        for name in {names!r}:
            try:
                os.makedirs(place, exist_ok=True)
                with open(os.path.join(place, name), "w") as file:
                    file.write("import os; os._exit(0)")
                print("wrote", os.path.abspath(os.path.join(place, name)))
            except OSError:
                pass
    """)
    written = {line.removeprefix("wrote ") for line in output.splitlines()}
    assert {f"/tmp/{name}" for name in names} <= written
    assert all(Path(path).is_relative_to("/tmp") for path in written)  # and that is the sandbox's own
    assert contents(places, names) == before
    assert before[f"{ours}/wire.py"]
    assert refused("def add(a, b): return 0")


def contents(places: Iterable[str], names: Iterable[str]) -> dict[str, bytes | None]:
    """What the host's files hold; None where there is none."""
    paths = [Path(place, name) for place in places for name in names]
    return {str(path): path.read_bytes() if path.exists() else None for path in paths}


# ---- breaking down --------------------------------------------------------------------------------------

FORKING = replace(LIMITS, fork=True, wall_s=2.0, cpu_s=1)


@pytest.mark.parametrize("limits", [replace(FORKING, fork=False), FORKING], ids=["no_fork", "fork"])
def test_fork_bomb(limits: Limits) -> None:
    """At most as many processes as allowed, and one where none may be started."""
    output = said(
        """
        import os, time
        made = 0
        for _ in range(100):
            try:
                if os.fork() == 0:
                    time.sleep(60)
                made += 1
            except OSError:
                pass
        print(made, flush=True)
        os._exit(0)
        """,
        limits,
    )
    # Two of the eight are the program itself and the first process of the sandbox.
    assert int(output) == (6 if limits.fork else 0)
    assert refused("import os\ndef add(a, b):\n  while True:\n    try: os.fork()\n    except OSError: pass", limits)


def test_thread_bomb() -> None:
    output = said("""
    import threading, time
    made = 0
    try:
        while made < 100:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            made += 1
    except RuntimeError:
        pass
    print(made, flush=True)
    import os
    os._exit(0)
    """)
    assert int(output) == 6


MEMORY = {
    "bytes": "def add(a, b): return len(bytearray(1 << 40))",
    "growing": "def add(a, b):\n  x = []\n  while True: x.append(bytearray(1 << 20))",
    "on_load": "x = [0] * (1 << 40)\ndef add(a, b): return a + b",
    "number": "def add(a, b): return 1 << (1 << 40)",
}


@pytest.mark.parametrize("source", MEMORY.values(), ids=MEMORY)
def test_memory_bomb(source: str) -> None:
    assert refused(source)


def test_memory_that_counts_for_no_process_cannot_be_had() -> None:
    """Files in memory and shared segments would live outside of the limit on a process's memory."""
    output = said("""
    import os
    try:
        os.memfd_create("x")
        print("memfd")
    except OSError:
        pass
    try:
        from multiprocessing import shared_memory
        shared_memory.SharedMemory(create=True, size=1 << 20)
        print("shared memory")
    except (OSError, ImportError):
        pass
    print("done")
    """)
    assert output == "done\n"


def test_disk_and_dev_filling() -> None:
    """One file is limited, /tmp as a whole is, and nothing else takes a byte."""
    output = said("""
    import os
    for place in ["/tmp/a", "/tmp/b", "/tmp/c", "/tmp/d", "/x", "/dev/x", "/dev/shm/x", "/dev/full", "/usr/lib/x"]:
        size = 0
        try:
            with open(place, "wb", buffering=0) as file:
                while size < 1 << 26:
                    size += file.write(bytes(1 << 20))
        except OSError:
            pass
        print(place, size >> 20)
    """)
    sizes = dict(line.split() for line in output.splitlines())
    most = {place: int(size) for place, size in sizes.items() if int(size)}
    assert most == {"/tmp/a": 8, "/tmp/b": 8}  # file_mb of 8, tmp_mb of 16, which also hold the folder's own pages


def test_endless_output() -> None:
    flood = OutputTests("while True: print('x' * 1000)", (("", "x"),))
    (verdict,) = judge_all([flood], isolation(), LIMITS, workers=1).verdicts
    assert verdict.passed is False
    assert "bytes of output" in verdict.reason
    assert refused("def add(a, b):\n  while True: print('x' * 1000)")


STUBBORN = """
import signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
"""


@pytest.mark.parametrize(
    "body",
    ["def add(a, b):\n  while True: time.sleep(60)", "while True: time.sleep(60)", "while True: pass"],
    ids=["sleeps_in_call", "sleeps_on_load", "computes"],
)
def test_a_sleeper_that_ignores_signals_ends_in_time(body: str) -> None:
    began = time.monotonic()
    assert refused(STUBBORN + body, replace(LIMITS, wall_s=1.5, cpu_s=1))
    assert time.monotonic() - began < 10


DAEMON = """
import os, signal, time

def daemon(behind):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            time.sleep(0.3)
            behind()
            time.sleep(60)
        os._exit(0)
"""


@pytest.mark.parametrize("limits", [replace(FORKING, fork=False), FORKING], ids=["no_fork", "fork"])
def test_a_daemon_holding_the_pipe_neither_lives_nor_delays(limits: Limits) -> None:
    """The program ends at once; its daemon holds the output, and would say the answer later."""
    source = DAEMON + "daemon(lambda: os.write(1, b'right'))\n"
    patient = replace(limits, wall_s=20.0)
    began = time.monotonic()
    (verdict,) = judge_all([OutputTests(source, (("", "right"),))], isolation(), patient, workers=1).verdicts
    assert time.monotonic() - began < 10
    assert verdict.passed is False
    assert verdict.reason.endswith("another output than expected" if limits.fork else "exit status 1")
    assert living() == []
    assert refused(DAEMON + "def add(a, b):\n  daemon(lambda: None)\n  os._exit(0)", limits)


# ---- ending from outside --------------------------------------------------------------------------------

SLEEPERS = f"""
from rlpipe.sandbox import CallTests, Limits, isolation, judge_all
sleeper = CallTests(("def add(a, b):\\n  print(1)\\n  while True: pass",), ("add(1, 2)",))
print("begun", flush=True)
judge_all([sleeper] * 40, isolation(), Limits(wall_s=1.0, open_files={MARK}), workers=2)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_who_ends_the_judge_ends_the_sandboxes(ending: signal.Signals) -> None:
    """40 sleepers of a second, two at a time, are 20 seconds of work; it is over within a few of the signal."""
    judge = subprocess.Popen([sys.executable, "-c", SLEEPERS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert judge.stdout
        judge.stdout.readline()
        assert _until(lambda: len(living()) >= 4)
        judge.send_signal(ending)
        assert judge.wait(10) != 0
        assert _until(lambda: living() == [])
    finally:
        judge.kill()
        judge.communicate()


def _until(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold within 5 seconds."""
    deadline = time.monotonic() + 5
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# ---- breaking out ---------------------------------------------------------------------------------------


def test_secrets_are_out_of_sight(secrets: Path) -> None:
    output = said(f"""
    import glob, os
    paths = ["/proc/1/environ", "/proc/self/environ", "/proc/self/mountinfo", "/etc/passwd", "/etc/shadow",
             "/etc/hostname", {str(secrets)!r} + "/.ssh/id_ed25519", os.path.expanduser("~/.ssh/id_ed25519")]
    paths += glob.glob("/proc/*/environ") + glob.glob("/home/*/.ssh/*") + glob.glob("/root/.ssh/*")
    for path in paths:
        try:
            print(path, open(path, "rb").read())
        except OSError:
            pass
    print(dict(os.environ))
    import posix
    print(posix.environ)
    """)
    assert SECRET not in output
    assert output.splitlines()[0] == "{}"  # no path was read, and the environment is empty
    assert all(key in (b"PYTHONHASHSEED", b"PWD", b"LC_CTYPE") for key in eval(output.splitlines()[1]))


def test_no_process_around_the_sandbox_has_our_environment(secrets: Path) -> None:
    """bwrap's own processes hold what they were started with, whatever they tell their children."""
    with Guest("candidate", "bubblewrap", LIMITS, value_bytes=1000) as guest:
        guest.ready()
        group = os.getpgid(guest._process.pid)
        members = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == group]
        environments = [_environment(member) for member in members]
    assert len(members) >= 3
    assert not any(SECRET.encode() in environment for environment in environments)


def _group(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[2])
    except OSError:
        return None


def _environment(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/environ").read_bytes()
    except PermissionError:
        return b""


def test_network_and_abstract_sockets() -> None:
    """Servers of the host, which a plain program of the host can reach, hear nothing."""
    name = f"\0rlpipe-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        output = said(f"""
        import socket
        for family, address in [(socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})),
                                (socket.AF_INET, ("10.0.0.1", 80)), (socket.AF_UNIX, {name!r})]:
            try:
                socket.socket(family).connect(address)
                print("connected", address)
            except OSError as error:
                print("refused", type(error).__name__)
        for make in (socket.socketpair, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)):
            try:
                make()
                print("made")
            except OSError:
                print("refused")
        """)
        for server in (tcp, abstract):
            server.settimeout(0)
            with pytest.raises(BlockingIOError):
                server.accept()
    assert len(output.splitlines()) == 5
    assert all(line.startswith("refused") for line in output.splitlines())


# (x86_64, aarch64), arguments. From the kernel's headers.
CALLS = {
    "unshare(CLONE_NEWUSER)": ((272, 97), (0x10000000,)),
    "clone(CLONE_NEWUSER)": ((56, 220), (0x10000011, 0, 0, 0, 0)),
    "clone3": ((435, 435), (0, 0)),
    "setns": ((308, 268), (0, 0)),
    "ptrace(TRACEME)": ((101, 117), (0, 0, 0, 0)),
    "process_vm_readv": ((310, 270), (1, 0, 0, 0, 0, 0)),
    "io_uring_setup": ((425, 425), (8, 0)),
    "io_uring_register": ((427, 427), (0, 0, 0, 0)),
    "mount": ((165, 40), (0, 0, 0, 0, 0)),
    "fsopen": ((430, 430), (0, 0)),
    "chroot": ((161, 51), (0,)),
    "pivot_root": ((155, 41), (0, 0)),
    "keyctl": ((250, 219), (0, 0, 0, 0, 0)),
    "add_key": ((248, 217), (0, 0, 0, 0, 0)),
    "bpf": ((321, 280), (0, 0, 0)),
    "perf_event_open": ((298, 241), (0, 0, 0, 0, 0)),
    "userfaultfd": ((323, 282), (0,)),
    "memfd_create": ((319, 279), (0, 0)),
    "shmget": ((29, 194), (0, 4096, 0o1000)),
    "socket": ((41, 198), (1, 1, 0)),
    "pidfd_open": ((434, 434), (1, 0)),
    "pidfd_getfd": ((438, 438), (0, 0, 0)),
    "open_by_handle_at": ((304, 265), (0, 0, 0)),
    "seccomp": ((317, 277), (0, 0, 0)),
    "prctl": ((157, 167), (22, 0, 0, 0, 0)),
    "setuid": ((105, 146), (0,)),
    "mknodat": ((259, 33), (-100, 0, 0, 0)),
}


def test_system_calls_that_break_out_do_not_exist() -> None:
    """Errno 38 is ENOSYS, 1 is EPERM; 20 of the machine's own calls, getpid among them, do work."""
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    numbers = {name: (pair[column], arguments) for name, (pair, arguments) in CALLS.items()}
    output = said(f"""
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    for name, (number, arguments) in {numbers!r}.items():
        result = libc.syscall(number, *map(ctypes.c_long, arguments))
        print(name, result, ctypes.get_errno())
    print("getpid", libc.syscall({(39, 172)[column]}) == os.getpid())
    """)
    *denied, allowed = output.splitlines()
    assert allowed == "getpid True"
    assert denied == [f"{name} -1 {1 if name == 'clone(CLONE_NEWUSER)' else 38}" for name in CALLS]


def test_calls_of_another_architecture_kill() -> None:
    """32-bit calls have other numbers, so that a filter which did not ask would let some of them through."""
    if platform.machine() != "x86_64":
        pytest.skip("the 32-bit entry of x86_64")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    source = """
    import ctypes, mmap
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))
    print("before", flush=True)
    print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
    """
    assert said(source) == "before\n"


def test_nobody_is_root_inside_or_outside() -> None:
    """The kernel does not hold root to a number of processes, and a way out would lead to root's files."""
    with Guest("candidate", "bubblewrap", LIMITS, value_bytes=1000) as guest:
        guest.ready()
        group = os.getpgid(guest._process.pid)
        members = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == group]
        inside = [p for p in members if _level(p) == max(_level(member) for member in members)]
        status = [line for p in inside for line in (p / "status").read_text().splitlines()]
    owners = {line.split()[1] for line in status if line.startswith("Uid:")}
    assert len(inside) == 2  # the sandbox's first process and the candidate
    assert owners == {"65534" if os.getuid() == 0 else str(os.getuid())}
    assert said("import os; print(os.getresuid(), os.getresgid())") == "(65534, 65534, 65534) (65534, 65534, 65534)\n"


def _level(process: Path) -> int:
    """In how many process namespaces a process has a number."""
    found = [line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:")]
    return len(found[0].split()) - 1


def test_limits_cannot_be_raised() -> None:
    output = said("""
    import resource
    for name in ["CPU", "AS", "FSIZE", "NOFILE", "NPROC"]:
        kind = getattr(resource, "RLIMIT_" + name)
        try:
            resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            print("raised", name)
        except (OSError, ValueError):
            print("kept", name)
    """)
    assert output.split()[::2] == ["kept"] * 5


def test_packages_of_the_host_are_not_there() -> None:
    """Only the standard library: what is installed could differ from one machine to the next, and tell of it."""
    output = said("""
    import os, sys
    sys.path += [os.path.join(os.path.dirname(os.__file__), name) for name in ("site-packages", "dist-packages")]
    for name in ("torch", "pip", "numpy"):
        try:
            __import__(name)
            print("imported", name)
        except ImportError:
            pass
    print("done")
    """)
    assert output == "done\n"
    assert "torch" in sys.modules or Path(sys.prefix, "lib").exists()
