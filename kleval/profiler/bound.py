"""Bounds of the machine: the bandwidth of a plain copy and the rate of a plain matrix product, measured once per run.

On a processor the product is torch's or the C++ library's, whichever is faster: torch's uses no AVX-512 on an AMD EPYC, and what is
measured against it alone comes to more than 100 %.

They bound every measurement from below: a decode step cannot take less than its bytes over the bandwidth, a prefill not less than
its operations over the rate. MBU and MFU are those bounds over the measured time. Both are best of several, because a bound is
what the machine can reach; a small model whose weights and state stay in a processor's cache can beat the copy bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from kleval.ops.native.product import product
from kleval.profiler.measure import Clock
from kleval.store import Point

REPEATS = 7
PRODUCTS, BURSTS = 8, 40  # of the library: timed together, and how often: a millisecond each
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


def native_rate(size: int = 256) -> float:
    """Operations per second of float32 products of [size, size] by the C++ library, one on each of torch's threads at once, best of
    BURSTS; 0 where there is no library. A size at which all lies in a core's second cache."""
    threads, generator = torch.get_num_threads(), torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, size, size, generator=generator)
    runs = [run for _ in range(threads) if (run := product(x, weight)) is not None]
    if not runs:
        return 0.0
    clock = Clock(torch.device("cpu"))
    with ThreadPoolExecutor(threads) as pool:
        work = lambda: list(pool.map(lambda run: [run() for _ in range(PRODUCTS)], runs))  # noqa: E731
        work()
        best = min(clock.each([work] * BURSTS))
    return 2 * size**3 * PRODUCTS * threads / best


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The largest that was measured, operations per second."""
    own = native_rate() if device.type == "cpu" and dtype == torch.float32 else 0.0
    return max(matmul_rate(device, dtype), own)


def machine_values(protocol: str, device: torch.device, dtype: torch.dtype) -> dict[str, float | int | None]:
    """The values of a machine point, measured."""
    if protocol == "copy":
        return {"bytes_per_second": copy_bandwidth(device)}
    return {"flops_per_second": peak_rate(device, dtype)}


def bound_of(points: Mapping[str, Point]) -> Bound | None:
    """The bound that the machine points among those (by id) tell; None before both are there."""
    copy, matmul = points.get("machine/copy"), points.get("machine/matmul")
    if copy is None or matmul is None:
        return None
    return Bound(float(copy.values["bytes_per_second"] or 0), float(matmul.values["flops_per_second"] or 0))
