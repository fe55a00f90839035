"""What the sandbox really holds, tried from inside: each property that the isolation promises, by breaking it."""

from __future__ import annotations

import os
from pathlib import Path

from rlpipe.sandbox.guest import wire
from rlpipe.sandbox.guest.start import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Set by us for the interpreter's start, by bwrap, and by the interpreter itself.
_HARMLESS = {"PYTHONHASHSEED", "PWD", "LC_CTYPE"}
_LIBRARY = Path(os.__file__).parent


def main(limits: dict[str, int], host_file: str) -> None:
    """Writes READY, and then one frame: the list of what should not have worked and did.

    `host_file` is one that the host can read.
    """
    left = sorted(set(os.environ) - _HARMLESS)
    confine(limits)
    wire.write_frame(1, wire.READY)
    holes = [f"the environment holds {', '.join(left)}"] if left else []
    holes += [hole for hole, attempt in _attempts(limits, host_file).items() if _works(attempt)]
    wire.write_frame(1, wire.encode(holes, 1 << 16))


def _attempts(limits: dict[str, int], host_file: str) -> dict[str, Callable[[], object]]:
    """What must fail, by what it would mean if it did not."""
    return {
        "it runs as root": _be_root,
        "the host's files can be read": Path(host_file).read_bytes,
        "/proc can be read": lambda: list(Path("/proc").iterdir()),
        "installed packages can be read": _read_packages,
        "/ can be written": lambda: _write(Path("/probe")),
        "/dev can be written": lambda: _write(Path("/dev/probe")),
        "/dev/shm can be written": lambda: _write(Path("/dev/shm/probe")),
        "the interpreter's library can be written": lambda: _write(_LIBRARY / "probe"),
        "sockets can be made": _make_socket,
        "processes can be started": _start_process,
        "the number of threads is not limited": lambda: _start_threads(limits["RLIMIT_NPROC"] + 1),
        "memory is not limited": lambda: bytearray(limits["RLIMIT_AS"]),
        "the size of a file is not limited": lambda: _write(Path("/tmp/probe"), limits["RLIMIT_FSIZE"] + 1),
    }


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError, RuntimeError):
        return False
    return True


def _be_root() -> None:
    if 0 not in (os.getuid(), os.geteuid()):
        raise PermissionError


def _write(path: Path, size: int = 1) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _read_packages() -> None:
    folders = [_LIBRARY / name for name in ("site-packages", "dist-packages")]
    if not any(list(folder.iterdir()) for folder in folders if folder.is_dir()):
        raise FileNotFoundError


def _make_socket() -> None:
    import _socket

    _socket.socket().close()


def _start_process() -> None:
    if os.fork() == 0:
        os._exit(0)


def _start_threads(number: int) -> None:
    import _thread

    _thread.stack_size(1 << 16)  # so that it is not the memory that ends first
    gate = _thread.allocate_lock()
    with gate:
        for _ in range(number):
            _thread.start_new_thread(gate.acquire, ())
