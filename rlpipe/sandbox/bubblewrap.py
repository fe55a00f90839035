"""The command that puts a Python interpreter into a sandbox of bubblewrap's."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rlpipe.sandbox.errors import SandboxError

# Nobody's account. The kernel does not count processes against a limit for root, so root gives itself up first.
UNPRIVILEGED = 65534
# Two things a bare run leaves open: the interpreter reads no user's settings and no working directory (-s -P),
# no site-packages (-S), writes no bytecode (-B). Not -I, which would also ignore PYTHONHASHSEED.
PYTHON_FLAGS = ("-s", "-P", "-S", "-B", "-X", "utf8")

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_STAGE = "/tmp"  # where root shows an ordinary user what only root can reach; any folder that every system has


@dataclass(frozen=True)
class Runtime:
    """What of the host a guest sees, all of it read-only: an interpreter with its libraries.

    Attributes:
        python: the interpreter's executable.
        shown: files and folders, each at its own place.
        links: (place, what the link there says).
        hidden: folders of installed packages inside of those shown; an empty one stands in their place.
    """

    python: Path
    shown: tuple[Path, ...]
    links: tuple[tuple[str, str], ...]
    hidden: tuple[Path, ...]


@functools.cache
def this_runtime() -> Runtime:
    """The interpreter that runs this, without its virtual environment."""
    python = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    prefixes = {Path(sys.base_prefix), Path(sys.base_exec_prefix)}
    libraries = [Path(place) for place in _LIBRARIES if Path(place).exists()]
    folders = [place for place in libraries if not place.is_symlink()]
    for prefix in sorted(prefixes):
        folders += [prefix / name for name in ("lib", "lib64") if (prefix / name).is_dir()]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = [
        folder / name / kind
        for folder in dict.fromkeys(folders)
        for name in (version, "python3")
        for kind in ("site-packages", "dist-packages")
    ]
    # The loader's list of where libraries are, for interpreters that are linked to one in /usr/local/lib.
    cache = [path for path in [Path("/etc/ld.so.cache")] if path.exists()]
    return Runtime(
        python=python,
        shown=tuple(dict.fromkeys([*folders, python, *cache])),
        links=tuple((str(place), str(place.readlink())) for place in libraries if place.is_symlink()),
        hidden=tuple(path for path in packages if path.is_dir()),
    )


def command(runtime: Runtime, *, tmp_mb: int, filter_fd: int, info_fd: int) -> list[str]:
    """What stands before the interpreter's own command line, for whoever runs this.

    Args:
        filter_fd: descriptor from which the system call filter is read.
        info_fd: descriptor to which the number of the sandbox's first process is written.
    Raises: SandboxError where a program that it takes is not installed.
    """
    info = ["--info-fd", str(info_fd)]
    if os.getuid() != 0:
        return [*_sandbox(runtime, {}, tmp_mb), *info, "--seccomp", str(filter_fd), "--"]
    staged = {path: f"{_STAGE}/{at}" for at, path in enumerate(runtime.shown) if not _open_to_all(path)}
    outer = [*_stage(staged), *info, "--"] if staged else []
    # The first process is the outermost one's, with which all others go.
    inner = [*_sandbox(runtime, staged, tmp_mb), *([] if staged else info), "--seccomp", str(filter_fd), "--"]
    return [*outer, *_as_nobody(), *inner]


def _sandbox(runtime: Runtime, staged: dict[Path, str], tmp_mb: int) -> list[str]:
    words = [_installed("bwrap", "apt install bubblewrap (0.8 or newer)")]
    # --unshare-all only tries for a user namespace; --unshare-user insists on one.
    words += ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--hostname", "sandbox"]
    words += ["--uid", str(UNPRIVILEGED), "--gid", str(UNPRIVILEGED), "--clearenv", "--setenv", "PYTHONHASHSEED", "0"]
    for path in runtime.shown:
        words += ["--ro-bind", staged.get(path, str(path)), str(path)]
    for place, target in runtime.links:
        words += ["--symlink", target, place]
    for folder in runtime.hidden:
        words += ["--size", "4096", "--tmpfs", str(folder), "--remount-ro", str(folder)]
    words += ["--dev", "/dev", "--remount-ro", "/dev"]
    return [*words, "--size", str(tmp_mb << 20), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]


def _stage(staged: dict[Path, str]) -> list[str]:
    """A mount namespace in which what root alone can reach stands at a place that everyone can.

    It has a process namespace as well: bwrap as root lays its rights down, among them the one to end a process of
    another user's, so that --die-with-parent of the sandbox inside would go unheard. With this namespace it ends.
    """
    words = [_installed("bwrap", "apt install bubblewrap"), "--dev-bind", "/", "/", "--tmpfs", _STAGE]
    words += ["--unshare-pid", "--proc", "/proc"]
    for path, place in staged.items():
        words += ["--ro-bind", str(path), place]
    return [*words, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--die-with-parent"]


def _as_nobody() -> list[str]:
    words = [_installed("setpriv", "apt install util-linux"), "--reuid", str(UNPRIVILEGED)]
    return [*words, "--regid", str(UNPRIVILEGED), "--clear-groups", "--"]


def _installed(program: str, how: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise SandboxError(f"{program} is not installed, and model-written code runs nowhere without it; {how}")
    return path


def _open_to_all(path: Path) -> bool:
    """Whether every user can come to `path` and read it."""
    needed = 0o005 if path.is_dir() else 0o004
    return all(folder.stat().st_mode & 0o001 for folder in path.parents) and path.stat().st_mode & needed == needed
