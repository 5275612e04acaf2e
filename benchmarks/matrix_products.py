"""The matrix products of a computation alone: recorded while it runs, then run again on tensors that are ready.

What they take is a bound for the computation on that machine in that precision: everything else it does comes on top. A fused
attention counts as its two products. Each distinct product is timed warm, as the least of a few calls.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Shape = tuple[tuple[int, ...], tuple[int, ...]]  # of the two operands
_SECOND = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "baddbmm_": 1}  # where the operands begin


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Shape] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _SECOND:
            a, b = args[_SECOND[name] : _SECOND[name] + 2]
            self.products[tuple(a.shape), tuple(b.shape)] += 1
        elif name == "_scaled_dot_product_flash_attention_for_cpu":
            q, k, v = (x.flatten(0, 1) for x in args[:3])
            self.products[tuple(q.shape), (len(k), k.shape[2], k.shape[1])] += 1
            self.products[(len(q), q.shape[1], k.shape[1]), tuple(v.shape)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def recorded() -> Iterator[Counter[Shape]]:
    """Within: count every matrix product by its operands' shapes. Operators take their torch forms: C++ is not seen from here."""
    before = os.environ.get("KLEVAL_NATIVE")
    os.environ["KLEVAL_NATIVE"] = "off"
    try:
        with _Recorder() as recorder:
            yield recorder.products
    finally:
        os.environ.pop("KLEVAL_NATIVE")
        if before is not None:
            os.environ["KLEVAL_NATIVE"] = before


@torch.inference_mode()
def seconds(products: Counter[Shape], calls: int = 3) -> float:
    """CPU time of these products, float32."""
    total = 0.0
    for (first, second), count in products.items():
        a, b = torch.randn(first), torch.randn(second)
        out = torch.empty(*first[:-1], second[-1])
        multiply: Callable[..., Tensor] = torch.mm if len(first) == 2 else torch.bmm
        multiply(a, b, out=out)
        inner = max(1, int(2e6 / (2 * out.numel() * first[-1] + 1)))  # so many calls that the clock can tell
        best = float("inf")
        for _ in range(calls):
            started = time.process_time()
            for _ in range(inner):
                multiply(a, b, out=out)
            best = min(best, (time.process_time() - started) / inner)
        total += best * count
    return total


def operations(products: Counter[Shape]) -> int:
    """Floating-point operations, 2 per multiply-add."""
    total = 0
    for (first, second), count in products.items():
        size = 2 * second[-1]
        for n in first:
            size *= n
        total += size * count
    return total
