"""The filter's decisions, by running it as the kernel would, and its numbers, against the kernel's headers."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from rlpipe.sandbox import SandboxError
from rlpipe.sandbox.seccomp import SYSTEM_CALLS, bpf

KILL, ALLOW = 0x80000000, 0x7FFF0000
NOSYS, PERM = 0x50000 | errno.ENOSYS, 0x50000 | errno.EPERM
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE, IOCTL = {"x86_64": 56, "aarch64": 220}, {"x86_64": 16, "aarch64": 29}
THREAD = 0x3D0F00  # CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID
PROCESS = 0x1200011  # CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD: what fork() is
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def decide(program: bytes, number: int, architecture: int, *arguments: int) -> int:
    """What classic BPF returns for one call: load word, jump if equal, jump if a bit is set, return."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: accumulator == operand, 0x45: bool(accumulator & operand)}[code]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("fork", [False, True])
def test_every_listed_call_is_allowed_and_no_other(machine: str, fork: bool) -> None:
    program, architecture = bpf(fork=fork, machine=machine), ARCHITECTURES[machine]
    column = list(ARCHITECTURES).index(machine)
    listed = {numbers[column] for numbers in SYSTEM_CALLS.values()} - {None}
    forks = {57, 58} if fork and machine == "x86_64" else set()
    for number in range(1024):
        if number in (CLONE[machine], IOCTL[machine]):
            continue
        expected = ALLOW if number in listed | forks else NOSYS
        assert decide(program, number, architecture) == expected, number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_threads_always_processes_when_allowed_namespaces_never(machine: str) -> None:
    """New namespaces are the bits 0x00020000 and 0x02000000 to 0x40000000."""
    for fork in (False, True):
        program, architecture = bpf(fork=fork, machine=machine), ARCHITECTURES[machine]
        assert decide(program, CLONE[machine], architecture, THREAD) == ALLOW
        assert decide(program, CLONE[machine], architecture, PROCESS) == (ALLOW if fork else PERM)
        for bit in (0x00020000, *(1 << position for position in range(25, 31))):
            assert decide(program, CLONE[machine], architecture, PROCESS | bit) == PERM
            assert decide(program, CLONE[machine], architecture, THREAD | bit) == PERM


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_ioctl_asks_and_never_types(machine: str) -> None:
    """TCGETS, by which Python asks whether it talks to a terminal; TIOCSTI 0x5412 would type into one."""
    program, architecture = bpf(fork=False, machine=machine), ARCHITECTURES[machine]
    assert decide(program, IOCTL[machine], architecture, 0, 0x5401) == ALLOW
    assert decide(program, IOCTL[machine], architecture, 0, 0x5412) == PERM


def test_calls_of_another_architecture_kill() -> None:
    """32-bit x86 is 0x40000003; the x32 numbers of x86_64 begin at 0x40000000 and are on no list."""
    program = bpf(fork=False, machine="x86_64")
    assert decide(program, 0, 0x40000003) == KILL
    assert decide(program, 0, ARCHITECTURES["aarch64"]) == KILL
    assert decide(program, 0x40000000, ARCHITECTURES["x86_64"]) == NOSYS


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_the_kernel_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"{HEADERS[machine]} is not installed (linux-libc-dev)")
    pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
    header = {name: int(number) for name, number in re.findall(pattern, HEADERS[machine].read_text())}
    column = list(ARCHITECTURES).index(machine)
    # The generic header's names of the calls that 32-bit machines have in another width.
    older = {"newfstatat": "fstatat"} if machine == "aarch64" else {}
    ours = {name: numbers[column] for name, numbers in SYSTEM_CALLS.items()}
    assert {name: header.get(older.get(name, name)) for name in ours} == ours


def test_a_machine_without_a_table_is_refused() -> None:
    with pytest.raises(SandboxError, match="no system call filter for riscv64"):
        bpf(fork=False, machine="riscv64")
