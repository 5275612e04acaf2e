"""Matrix product of the C++ library, with packed weights: what its prefill is made of, and so what it can reach."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kleval.ops.native.loading import native


class Matrix(ctypes.Structure):
    """Packed weights: where they lie, and their shape."""

    _fields_ = (("data", ctypes.c_void_p), ("outputs", ctypes.c_int64), ("inputs", ctypes.c_int64))


def panel() -> int:
    """Outputs that are packed together; the library must be there."""
    library = native()
    assert library is not None
    library.code.kleval_panel.restype = ctypes.c_int64
    return int(library.code.kleval_panel())


def packed(x: Tensor, wide: int) -> Tensor:
    """[..., N, K] -> [..., N / wide, K, wide], zeros behind."""
    x = nn.functional.pad(x.detach().float(), (0, 0, 0, -x.shape[-2] % wide))
    return x.unflatten(-2, (-1, wide)).transpose(-1, -2)


def product(x: Tensor, weight: Tensor) -> Callable[[], Tensor] | None:
    """x [M, K] times weight [N, K] transposed -> [M, N], float32, on one thread; None without the library."""
    library = native()
    if library is None:
        return None
    rows, data = x.float().contiguous(), packed(weight, panel()).contiguous()
    out, shape = torch.empty(len(x), len(weight)), tuple(weight.shape)

    def run() -> Tensor:
        matrix = Matrix(data.data_ptr(), *shape)
        where = ctypes.c_void_p(rows.data_ptr()), ctypes.c_int64(len(rows)), ctypes.byref(matrix)
        if library.code.kleval_multiply(*where, ctypes.c_void_p(out.data_ptr())):
            raise MemoryError("no memory for a matrix product")
        return out

    return run
