"""Limits of a sandboxed program and the result of running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]
MIB = 1 << 20


class SandboxFault(Exception):
    """The sandbox itself failed: nothing is known about the program."""


@dataclass(frozen=True, slots=True)
class Limits:
    """seconds: wall clock, from the program's start. memory_bytes: address space of each process, and resident memory of all
    together (looked at every 20 ms). disk_bytes: all files written, which live in memory too. file_bytes: the longest one.
    output_bytes: stdout and stderr, each. processes: processes and threads at a time, the program included.
    """

    seconds: float = 10.0
    memory_bytes: int = 1024 * MIB
    disk_bytes: int = 64 * MIB
    file_bytes: int = 32 * MIB
    output_bytes: int = 1 * MIB
    processes: int = 8
    open_files: int = 64

    def __post_init__(self) -> None:
        least = min(self.memory_bytes, self.disk_bytes, self.file_bytes, self.output_bytes, self.processes)
        if self.seconds <= 0 or least < 1 or self.open_files < 8:
            raise ValueError("limits must be positive, with 8 open files or more")


@dataclass(frozen=True, slots=True)
class Result:
    """status: `ok` exit code 0 · `error` another one · `timeout` wall clock or CPU time · `memory` more than allowed, or a
    MemoryError that nobody caught · `output` more than allowed · `killed` by a signal.

    exit_code: minus the signal's number where a signal ended it, None where the sandbox did. stdout, stderr: cut at the
    limit, undecodable bytes replaced. seconds: wall time of the program.
    """

    status: Status
    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float
