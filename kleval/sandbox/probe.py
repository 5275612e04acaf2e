"""Probe of the isolation that this machine gives: one sandbox per process, in which a program checks every layer."""

from __future__ import annotations

import json
import os
import platform
import sys
from functools import cache
from pathlib import Path

from kleval.sandbox import seccomp
from kleval.sandbox.kinds import Limits, SandboxFault
from kleval.sandbox.runner import run_unchecked
from kleval.types import UsageError

_LOOK = """
import ctypes, errno, json, os
held = {}
held["process namespace"] = os.getpid() < 10 and not os.path.exists("/proc/self")
held["user"] = os.getuid() != 0
held["file system"] = not os.path.exists(MARK) and sorted(os.listdir("/box")) == []
try:
    open("/usr/lib/kleval-probe", "w").close()
    held["read-only files"] = False
except OSError:
    held["read-only files"] = True
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *args):
    ctypes.set_errno(0)
    return getattr(libc, call)(*args) == -1 and ctypes.get_errno() == errno.EPERM
held["network filter"] = refused("socket", 2, 1, 0)
held["tracing filter"] = refused("ptrace", 0, 0, 0, 0)
held["namespace filter"] = refused("unshare", 0x10000000)
held["no new privileges"] = libc.prctl(39, 0, 0, 0, 0) == 1
held["process limit"] = False
children = []
try:
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            import time
            time.sleep(5)
            os._exit(0)
        children.append(pid)
except BlockingIOError:
    held["process limit"] = len(children) == 2
print(json.dumps(held))
"""


def require() -> None:
    """UsageError where generated code cannot be isolated here, saying what to do."""
    reason = available()
    if reason:
        raise UsageError(f"generated code cannot be run safely here: {reason}")


@cache
def available() -> str:
    """Why this machine cannot isolate; empty where it can. Found out once, by trying, in about a tenth of a second."""
    if not sys.platform.startswith("linux"):
        return f"the sandbox needs Linux, this is {platform.system()}; run it in a Linux machine or container"
    if not seccomp.supported(platform.machine()):
        return f"the sandbox knows x86_64 and aarch64, this is {platform.machine()}"
    me = os.getpid()
    if not Path(f"/proc/{me}/task/{me}/children").exists():
        return "the kernel does not list a process's children in /proc, which the memory limit needs"
    marked = Path(__file__).resolve()
    limits = Limits(seconds=20, processes=3)
    try:
        result = run_unchecked(f"MARK = {str(marked)!r}\n{_LOOK}", limits=limits)
    except SandboxFault as fault:
        return f"{fault}; {_advice()}"
    if result.status != "ok":
        last = result.stderr.strip().splitlines()[-1:] or [""]
        return f"the sandbox's own check ended with {result.status} {last[0]}"
    missing = [layer for layer, holds in json.loads(result.stdout).items() if not holds]
    return f"this kernel does not give the sandbox its {', '.join(missing)}; {_advice()}" if missing else ""


def _advice() -> str:
    settings = {
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "1"),
        "/proc/sys/user/max_user_namespaces": ("0", "10000"),
    }
    for path, (forbidding, allowing) in settings.items():
        try:
            if Path(path).read_text().strip() == forbidding:
                name = path.removeprefix("/proc/sys/").replace("/", ".")
                return f"user namespaces are forbidden: `sysctl {name}={allowing}` allows them"
        except OSError:
            continue
    return (
        "user namespaces must be allowed, on Linux 5.14 or newer; in a container, start it with"
        " `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`"
    )
