"""A sandbox for Python programs that nobody has read.

Each runs in a process tree of its own that sees no network, no file of the machine but the Python library, no variable of its
parent, and that is bounded in time, memory, processes, files and output.

Linux only, with the kernel's own means (user, pid, mount, network, ipc, uts and cgroup namespaces, seccomp, resource
limits) through the standard library; see `jail`. Where one of the layers cannot be had nothing is run: `require` says why.
docs/security.md lists the attacks that it was tried with.
"""

from __future__ import annotations

from kleval.sandbox.checked import run
from kleval.sandbox.kinds import Limits, Result, SandboxFault, Status
from kleval.sandbox.probe import available, require

__all__ = ["Limits", "Result", "SandboxFault", "Status", "available", "require", "run"]
