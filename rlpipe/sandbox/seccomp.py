"""The system calls that a guest may make: an allow-list, as a classic BPF program for the kernel.

An allow-list, because what a kernel learns to do next year is not on it; a denied call fails with ENOSYS, as on a
kernel that lacks it, so that a C library falls back (clone3 to clone) instead of dying. See docs/sandbox.md.
"""

from __future__ import annotations

import errno
import platform
import struct

from rlpipe.sandbox.errors import SandboxError

# Number of each call on x86_64 and on aarch64; None where the machine has none of that name.
SYSTEM_CALLS: dict[str, tuple[int, int | None]] = {
    # memory
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "msync": (26, 227),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    # files, of which there are the interpreter's to read and /tmp to write
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "openat": (257, 56),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fadvise64": (221, 223),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "umask": (95, 166),
    "utimensat": (280, 88),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "copy_file_range": (326, 285),
    "sendfile": (40, 71),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    # waiting
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    # time
    "time": (201, None),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "times": (100, 153),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "alarm": (37, None),
    "pause": (34, None),
    # signals, which reach nobody outside of the process namespace
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "restart_syscall": (219, 128),
    # the process itself
    "execve": (59, 221),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "setsid": (112, 157),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "set_tid_address": (218, 96),
    "arch_prctl": (158, None),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168),
    # the machine
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "getrandom": (318, 278),
}
# Checked by their arguments.
CLONE, IOCTL = (56, 220), (16, 29)
# Only where processes may be started.
FORK: dict[str, tuple[int, int | None]] = {"fork": (57, None), "vfork": (58, None)}

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

# Questions about a descriptor: TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020000  # NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]. Little-endian on both machines.
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_KILL_PROCESS, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def bpf(*, fork: bool, machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`, which is what `bwrap --seccomp` reads.

    Args:
        fork: whether processes may be started; threads always may.
        machine: as `platform.machine()` says it, which is the default.
    Raises: SandboxError for a machine whose call numbers are not in the table.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise SandboxError(f"no system call filter for {machine}; there is one for {', '.join(_MACHINES)}")
    column, architecture = _MACHINES[machine]
    calls = SYSTEM_CALLS | (FORK if fork else {})
    numbers = [number for pair in calls.values() if (number := pair[column]) is not None]
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
        *_for_call(CLONE[column], _clone(fork)),
        *_for_call(IOCTL[column], _ioctl()),
        *[(_JUMP_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)],
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _for_call(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """`body`, which always returns, for one call; the others pass it by."""
    return [(_JUMP_EQUAL, 0, len(body), number), *body]


def _clone(fork: bool) -> list[_Instruction]:
    """No new namespace; a new process only where those are allowed."""
    any_of = 0xFFFFFFFF if fork else _CLONE_THREAD  # every real clone sets some bit
    return [
        (_LOAD, 0, 0, _ARG0),
        (_JUMP_SET, 2, 0, _CLONE_NEW),
        (_JUMP_SET, 0, 1, any_of),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]


def _ioctl() -> list[_Instruction]:
    return [
        (_LOAD, 0, 0, _ARG1),
        *[(_JUMP_EQUAL, len(_IOCTLS) - at, 0, request) for at, request in enumerate(_IOCTLS)],
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
