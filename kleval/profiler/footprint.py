"""Memory that a sequence really takes: live tensors, storage behind them, allocator, process.

used: bytes of the tensors that hold tokens; equal to the closed form, or something is wrong. allocated: their storage, spare room
included. workspace: what a decode step needs on top for a moment. On CUDA workspace and peak are the allocator's own count. On a
CPU they are read from the process: resident memory and its high-water mark, which Linux lets a process reset; elsewhere None. The
process also holds what the C allocator has not given back, so a workspace below that is not seen: a lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kleval.models.decoder import Decoder
from kleval.profiler.prefill import new_cache

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


@torch.no_grad()
def state_footprint(decoder: Decoder, ctx: int, ids: Tensor, seed: int) -> dict[str, float | int | None]:
    """The values of a memory point: one sequence of ctx tokens, then one decode step ids [1, 1] on top of it."""
    device = ids.device
    before = resident_bytes() if device.type == "cpu" else None
    cache = new_cache(decoder, 1, ctx)
    cache.fill(ctx, seed)
    used = cache.used_by_component()
    values: dict[str, float | int | None] = {
        "latent_bytes": used.latent,
        "recurrent_bytes": used.recurrent,
        "conv_bytes": used.conv,
        "state_bytes": cache.used_bytes(),
        "allocated_bytes": cache.allocated_bytes(),
        "weights_bytes": sum(p.numel() * p.element_size() for p in decoder.parameters()),
    }
    after = resident_bytes() if device.type == "cpu" else None
    cache.reserve(1)  # room is not workspace
    peak = watch_peak(device, lambda: decoder.logits(decoder.hidden(ids, cache)))
    return values | {
        "workspace_bytes": peak.extra_bytes,
        "peak_bytes": peak.peak_bytes,
        "reserved_bytes": peak.reserved_bytes,
        "rss_bytes": after,
        "rss_growth_bytes": None if before is None or after is None else after - before,
    }


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
