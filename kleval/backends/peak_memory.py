"""Peak memory while something runs: on CUDA the allocator's own count, on a CPU the process's.

A CPU's is read from the resident memory and its high-water mark, which Linux lets a process reset; elsewhere it is None. The process
also holds what the C allocator has not given back, so growth below that is not seen: a lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Peak:
    """extra_bytes: the highest that memory went above where it was; None where that cannot be seen."""

    extra_bytes: int | None
    peak_bytes: int | None = None
    reserved_bytes: int | None = None


def watch_peak(device: torch.device, work: Callable[[], object]) -> Peak:
    """Run work and see how high memory went meanwhile."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        return Peak(peak - before, peak, torch.cuda.max_memory_reserved(device))
    resettable = reset_high_water()
    resident = resident_bytes()
    work()
    high = high_water_bytes()
    return Peak(max(high - resident, 0) if resettable and resident is not None and high is not None else None)


def resident_bytes() -> int | None:
    return _status("VmRSS")


def high_water_bytes() -> int | None:
    return _status("VmHWM")


def reset_high_water() -> bool:
    """Set the high-water mark of resident memory back to what is resident now; whether that could be done."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int | None:
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None
