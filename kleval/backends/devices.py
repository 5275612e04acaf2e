"""Device and dtype of an engine in this process, as the user names them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from kleval.types import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_dtype(name: str) -> torch.dtype | None:
    """None for `auto`. UsageError for an unknown one."""
    if name not in ("auto", *DTYPES):
        raise UsageError(f"unknown dtype {name!r}: choose one of auto, {', '.join(DTYPES)}")
    return DTYPES.get(name)


def find_device(name: str) -> torch.device:
    """`auto` is CUDA where there is CUDA. UsageError for what is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: give auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}: give auto, cpu, cuda or cuda:N")
    return device


def settle_dtype(name: str, device: torch.device) -> str:
    """float32 for `auto` on a CPU that computes bfloat16 and float16 by converting every number; else as it is given."""
    slow = name == "auto" and device.type == "cpu" and not has_bfloat16_units()
    return "float32" if slow else name


@cache
def has_bfloat16_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 itself: by AVX512-BF16 or AMX, on ARM by its bf16 extension."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()[2:]}
    if flags:
        return not flags.isdisjoint(("avx512_bf16", "amx_bf16", "bf16", "svebf16"))
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(ask() for ask in asked if ask is not None)


def device_name(device: torch.device) -> str:
    """As it is recorded: with the GPU's name."""
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "cpu"
