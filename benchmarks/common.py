"""What the comparisons share: engines as child processes, their peak memory, the environment, tables.

Imports the standard library alone, so that any interpreter that has an engine can run a benchmark's child. Times are CPU seconds of
a process with one thread: on an idle machine that is wall-clock time, on a shared one it leaves waiting for others out.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MIB = 1 << 20
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run_child(script: str, job: dict[str, Any], python: str = sys.executable) -> dict[str, Any]:
    """Run `python script --child JSON` with one thread; its last line of output is its answer. SystemExit where it fails."""
    command = [python, script, "--child", json.dumps(job)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job.get('engine', 'child')} failed:\n{done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def peak_bytes() -> int:
    """Largest resident set of this process so far, on Linux since the last reset. (There `ru_maxrss` would begin at the parent's.)"""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def timed(run: Callable[[], Any], repeats: int = 1) -> float:
    """Median CPU seconds of a call."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def length(text: str) -> int:
    """4k -> 4096, 1m -> 1048576, 512 -> 512."""
    factor = {"k": 1 << 10, "m": 1 << 20}.get(text[-1].lower(), 1)
    return int(text if factor == 1 else text[:-1]) * factor


def short(tokens: int) -> str:
    for name, unit in (("m", 1 << 20), ("k", 1 << 10)):
        if tokens >= unit and tokens % unit == 0:
            return f"{tokens // unit}{name}"
    return str(tokens)


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1, unit: str = "") -> str:
    """least/median/largest"""
    ordered = sorted(value * scale for value in values)
    return "/".join(f"{x:.{digits}f}" for x in (ordered[0], statistics.median(ordered), ordered[-1])) + unit


def ratio_of(others: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Of each round."""
    return [other / own for other, own in zip(others, ours, strict=True)]


def peaks() -> str:
    """What this thread reaches: the best of several calls."""
    import torch

    from kleval.profiler.bound import native_rate

    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    far = torch.ones(1 << 26)
    best = [float("inf")] * 2
    for _ in range(5):
        for i, work in enumerate((lambda: a @ b, far.sum)):
            started = time.process_time()
            work()
            best[i] = min(best[i], time.process_time() - started)
    rate, bandwidth = 2 * 1536**3 / best[0] / 1e9, far.numel() * 4 / best[1] / 1e9
    own = native_rate() / 1e9
    ours = f", of the C++ library {own:.0f}" if own else ""
    return f"a matrix product of torch {rate:.0f} GFLOP/s{ours}; reading memory {bandwidth:.1f} GB/s"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def print_environment(used: str = "1 thread used", **versions: str) -> None:
    parts = [cpu_name(), f"{os.cpu_count()} cores, {used}", f"Python {platform.python_version()}"]
    print(", ".join(parts + [f"{name} {version}" for name, version in versions.items()]))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def print_goals(goals: Sequence[tuple[str, float, float, str]]) -> None:
    """(what, value, goal, "x" or unit): one line each; a goal is reached by a value at least as large."""
    for what, value, goal, unit in goals:
        print(f"{what}: {value:.1f}{unit} (goal {goal:g}{unit}: {'reached' if value >= goal else 'not reached'})")
