"""The fingerprint that every point carries: what ran it, and on what."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import kleval
from kleval.store.machine import commit, machine

if TYPE_CHECKING:
    import torch

FREE_SHARE = {"cpu": 0.9, "cuda": 0.97}  # of free memory that a profile may plan with


def resolve_device(name: str) -> torch.device:
    """As backends take it, a CUDA device with its number. UsageError for a device that is not there."""
    import torch

    from kleval.backends.devices import find_device

    device = find_device(name)
    numbered = device.type != "cuda" or device.index is not None
    return device if numbered else torch.device("cuda", torch.cuda.current_device())


def resolve_dtype(dtype: str, device: torch.device) -> str:
    if dtype != "auto":
        return dtype
    return "bfloat16" if device.type == "cuda" else "float32"


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses, on the device."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(psutil.virtual_memory().available)


def fingerprint(device: torch.device) -> dict[str, Any]:
    """cpu, cores, threads, gpu, driver, versions, kernels: JSON values."""
    import torch

    from kleval.ops.check import kernels_in_use

    found = machine() | {
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": None,
        "driver": None,
        "cuda": None,
        "torch": str(torch.__version__),
        "kernels": dict(kernels_in_use(device)),
        "kleval": kleval.__version__,
        "commit": commit(),
    }
    if device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(device),
            "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "driver": driver(),
            "cuda": torch.version.cuda,
        }
    return found


def operator_code(device: torch.device) -> dict[str, str]:
    """What computes this package's operators on a CPU, for the fingerprint of a profile of them: may build it."""
    from kleval.ops.native.loading import native

    return {"native": str(native() or "torch")} if device.type == "cpu" else {}


def machine_settings(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What of a fingerprint must be the same for a profile to go on."""
    names = ("cpu", "threads", "gpu", "torch", "native")
    return {f"machine.{name}": environment[name] for name in names if name in environment}


def driver() -> str | None:
    """The NVIDIA driver's version, as nvidia-smi says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.splitlines() or [""])[0].strip() or None
