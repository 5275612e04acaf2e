"""Bounds of the machine: the bandwidth of a plain copy and the rate of a plain matrix product, measured once per run.

They bound every measurement from below: a decode step cannot take less than its bytes over the bandwidth, a prefill not less than
its operations over the rate. MBU and MFU are those bounds over the measured time. Both are best of several, because a bound is
what the machine can reach; a small model whose weights and state stay in a processor's cache can beat the copy bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from kleval.profiler.measure import Clock
from kleval.store import Point

REPEATS = 7
COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True, slots=True)
class Bound:
    """bytes_per_second: read plus written by a copy. flops_per_second: of a square matrix product, 2 per multiply-add."""

    bytes_per_second: float
    flops_per_second: float

    def prefill_seconds(self, flops: float) -> float:
        return flops / self.flops_per_second

    def decode_seconds(self, flops: float, nbytes: float) -> float:
        return max(flops / self.flops_per_second, nbytes / self.bytes_per_second)


def copy_bandwidth(device: torch.device, size_bytes: int | None = None) -> float:
    """Bytes per second that a copy reads and writes, best of REPEATS after a warm-up. size_bytes: of the source."""
    source = torch.ones((size_bytes or COPY_BYTES[device.type]) // 4, device=device)
    target = torch.empty_like(source)
    clock = Clock(device)
    target.copy_(source)
    best = min(clock.each([lambda: target.copy_(source)] * REPEATS))
    return 2 * source.numel() * source.element_size() / best


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Operations per second of a [size, size] x [size, size] product, best of REPEATS after a warm-up."""
    n = size or MATRIX_SIZE[device.type]
    generator = torch.Generator(device=device).manual_seed(0)
    a = torch.randn(n, n, device=device, generator=generator).to(dtype)
    b = torch.randn(n, n, device=device, generator=generator).to(dtype)
    out = torch.empty_like(a)
    clock = Clock(device)
    torch.mm(a, b, out=out)
    best = min(clock.each([lambda: torch.mm(a, b, out=out)] * REPEATS))
    return 2 * n**3 / best


def machine_values(protocol: str, device: torch.device, dtype: torch.dtype) -> dict[str, float | int | None]:
    """The values of a machine point, measured."""
    if protocol == "copy":
        return {"bytes_per_second": copy_bandwidth(device)}
    return {"flops_per_second": matmul_rate(device, dtype)}


def bound_of(points: Mapping[str, Point]) -> Bound | None:
    """The bound that the machine points among those (by id) tell; None before both are there."""
    copy, matmul = points.get("machine/copy"), points.get("machine/matmul")
    if copy is None or matmul is None:
        return None
    return Bound(float(copy.values["bytes_per_second"] or 0), float(matmul.values["flops_per_second"] or 0))
