"""Number formats of weights and caches, and how many bytes so many numbers take in each.

Plain dtypes are whole bytes. `fp8` has a float32 scale per block of 128 x 128 of a matrix (DeepSeek-V3's checkpoints) and none in a
cache; `int4` a 2-byte scale per 32 numbers (Kimi K2 Thinking's experts; llama.cpp's q4_0 in caches); `mxfp4` a 1-byte scale per 32,
for routed experts alone (as Kimi K3 and gpt-oss are published). Which matrices are quantized: those of the layers, but not the
router; embedding, head, norms and convolutions keep the model's dtype, decay rates and router bias float32.
"""

from __future__ import annotations

from kleval.types import UsageError

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_BITS = {"fp8": 8, "int4": 4, "mxfp4": 4}
_SCALES = {"fp8": (128 * 128, 4), "int4": (32, 2), "mxfp4": (32, 1)}  # numbers that share one, its bytes
WEIGHT_FORMATS = ("bfloat16", "float16", "float32", "fp8", "int4", "mxfp4")
CACHE_FORMATS = ("bfloat16", "float16", "float32", "fp8", "int4")


def dtype_bytes(dtype: str) -> int:
    """Bytes of one number. UsageError for a dtype that models do not have."""
    if dtype not in DTYPE_BYTES:
        raise UsageError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[dtype]


def wide_bytes(dtype: str) -> int:
    """Bytes of one number where a model of that dtype keeps float32 (float64 for float64)."""
    return max(4, dtype_bytes(dtype))


def matrix_bytes(numbers: int, form: str, dtype: str, routed: bool = False) -> int:
    """Bytes of a matrix of a layer. dtype: of what is not quantized; routed: whether it is one of routed experts."""
    if form == "mxfp4" and not routed:
        form = dtype
    if form not in _BITS:
        return numbers * dtype_bytes(form)
    block, scale = _SCALES[form]
    return -(-numbers * _BITS[form] // 8) + -(-numbers // block) * scale


def cache_bytes(numbers: int, form: str) -> int:
    """Bytes of so many numbers of keys and values."""
    if form == "fp8":
        return numbers
    return matrix_bytes(numbers, form, form)
