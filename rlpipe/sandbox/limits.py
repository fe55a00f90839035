"""How much a program may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one program, and of the process that tests it.

    Attributes:
        cpu_s: seconds of CPU of each process.
        wall_s: seconds from start to verdict; for stdin/stdout, of each test.
        memory_mb: address space of each process. Without `fork` there is one process, so this is the whole.
        threads: threads and processes together.
        fork: whether the program may start processes.
        file_mb: size of one file.
        tmp_mb: size of /tmp, the only place that can be written.
        open_files: descriptors of each process.
        output_mb: standard output of a program, and one value that a call takes or gives.
    """

    cpu_s: int = 5
    wall_s: float = 20.0
    memory_mb: int = 512
    threads: int = 16
    fork: bool = False
    file_mb: int = 8
    tmp_mb: int = 16
    open_files: int = 64
    output_mb: int = 4

    @property
    def output_bytes(self) -> int:
        """`output_mb` in bytes."""
        return self.output_mb << 20

    def resources(self, *, own_user_namespace: bool) -> dict[str, int]:
        """The limits that a guest sets on itself, by their names in the module `resource`.

        In a user namespace of its own the number of processes counts the guest's alone. Elsewhere it would count
        all of the user's, and is left as it is.
        """
        counted = {"RLIMIT_NPROC": self.threads} if own_user_namespace else {}
        return {
            "RLIMIT_CPU": self.cpu_s,
            "RLIMIT_AS": self.memory_mb << 20,
            "RLIMIT_FSIZE": self.file_mb << 20,
            "RLIMIT_NOFILE": self.open_files,
            # 1 and not 0: a core_pattern that pipes to a program of the host is obeyed at 0, and not at 1.
            "RLIMIT_CORE": 1,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
            **counted,
        }
