"""GPUs as NVML knows them: energy that each has taken, and bytes that processes hold on it.

NVML counts every GPU of the machine, those that this process does not see (`CUDA_VISIBLE_DEVICES`), too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kleval.work.worker import visible_device


@dataclass(frozen=True, slots=True)
class Gpu:
    """name: with the number or UUID that NVML knows it by. What it cannot tell is an error of pynvml's, whatever its type."""

    name: str
    nvml: Any
    handle: Any

    def joules(self) -> float:
        """Since the driver was loaded; Volta and newer."""
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1e3)

    def bytes_of(self, pids: Collection[int]) -> int:
        """What these processes hold on it, as far as NVML tells."""
        running = self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        return sum(one.usedGpuMemory or 0 for one in running if one.pid in pids)


def gpus(index: int | None = None) -> list[Gpu]:
    """All of the machine, or the one that this process calls by an index; none where NVML does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return [_gpu(pynvml, at) for at in (range(pynvml.nvmlDeviceGetCount()) if index is None else [_seen(index)])]
    except Exception:
        return []


def _seen(index: int) -> int | str:
    name = visible_device(index)
    return int(name) if name.isdecimal() else name


def _gpu(nvml: Any, index: int | str) -> Gpu:
    handle = (nvml.nvmlDeviceGetHandleByIndex if isinstance(index, int) else nvml.nvmlDeviceGetHandleByUUID)(index)
    name = nvml.nvmlDeviceGetName(handle)
    return Gpu(f"{name.decode() if isinstance(name, bytes) else name} {index}", nvml, handle)
