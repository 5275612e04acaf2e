"""The gated delta rule in C++: KDA and GDN forward and backward, token by token (`delta_rule.cpp`), as `ops.delta_rule` defines them.

Forward keeps the state before every 16 tokens when a gradient is wanted; backward runs each 16 tokens again from there. Any sizes;
float32, and float64 for tests. Operands are read where they lie as long as their last dimension is contiguous.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kleval.ops.native.loading import native

SPAN = 16  # tokens from one kept state to the next
_SHARED_WORK = 1 << 21  # multiply-adds from which on several threads are worth making


class _Operand(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("token", ctypes.c_int64),
        ("head", ctypes.c_int64),
    )


_SIZES = [
    (name, ctypes.c_int64) for name in ("batch", "tokens", "heads", "key", "value", "channel_decay", "wide", "threads")
]


def _structure(operands: str, pointers: str) -> type[ctypes.Structure]:
    fields: list[tuple[str, Any]] = [(name, _Operand) for name in operands.split()]
    fields += [(name, ctypes.c_void_p) for name in pointers.split()]
    return type("Arguments", (ctypes.Structure,), {"_fields_": (*fields, *_SIZES)})


_Forward = _structure("q k v g beta o", "first last saved")
_Backward = _structure("q k v g beta d_o", "d_last saved d_q d_k d_v d_g d_beta d_first")


def fits(q: Tensor) -> bool:
    """Whether operators hand such operands to the library."""
    return q.device.type == "cpu" and q.dtype != torch.float64 and native() is not None


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Shapes and results of `kda.recurrent_kda`, or with g [B, T, H] or [B, T, H, 1] of `gdn.recurrent_gdn`; differentiable once."""
    out_dtype = v.dtype
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    with torch.autocast("cpu", enabled=False):
        operands = [x.to(wide) for x in (q, k, v, _per_head(g, k), beta)]
        state = None if initial_state is None else initial_state.to(wide)
        wanted = [x for x in (*operands, state) if x is not None and x.requires_grad]
        if torch.is_grad_enabled() and wanted:
            if state is None:
                state = operands[0].new_zeros(_state_shape(q, v))
            o, last = _DeltaRule.apply(*operands, state)
        else:
            o, last, _ = _forward([_readable(x) for x in operands], state, False)
    return o.to(out_dtype), last


def step_in_place(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """One token or more, without gradient; state [B, H, K, V], float32 or float64 and contiguous, is updated where it lies."""
    operands = [_readable(x.to(state.dtype)) for x in (q, k, v, _per_head(g, k), beta)]
    o, _, _ = _forward(operands, state, False, state)
    return o.to(v.dtype)


def _state_shape(q: Tensor, v: Tensor) -> tuple[int, ...]:
    return (q.shape[0], q.shape[2], q.shape[3], v.shape[3])


def _per_head(g: Tensor, k: Tensor) -> Tensor:
    """One decay per head is [B, T, H] here, [B, T, H, 1] where operators are written for both."""
    return g.squeeze(-1) if g.dim() == 4 and g.shape[-1] < k.shape[-1] else g


def _readable(x: Tensor) -> Tensor:
    return x if x.dim() == 3 or x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _operand(x: Tensor) -> _Operand:
    return _Operand(x.data_ptr(), *x.stride()[:3])


def _sizes(q: Tensor, v: Tensor, g: Tensor) -> tuple[int, ...]:
    batch, tokens, heads, key = q.shape
    threads = torch.get_num_threads() if tokens * heads * batch * key * v.shape[-1] * 4 > _SHARED_WORK else 1
    return (batch, tokens, heads, key, v.shape[-1], int(g.dim() == 4), int(q.dtype == torch.float64), threads)


def call(name: str, arguments: ctypes.Structure) -> None:
    """A function of the library; MemoryError or RuntimeError where it fails."""
    library = native()
    assert library is not None
    failed = getattr(library.code, name)(ctypes.byref(arguments))
    if failed:
        raise MemoryError(f"{name}: out of memory") if failed == 1 else RuntimeError(f"{name} failed")


def _forward(
    operands: Sequence[Tensor], first: Tensor | None, keep: bool, last: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """o, the last state (written into `last` where that is given), and with keep the states before every SPAN tokens."""
    q, _, v, g, _ = operands
    first = None if first is None else first.contiguous()
    o = torch.empty(v.shape, dtype=v.dtype)
    shape = _state_shape(q, v)
    last = torch.empty(shape, dtype=q.dtype) if last is None else last
    saved = torch.empty(*shape[:2], -(-q.shape[1] // SPAN), *shape[2:], dtype=q.dtype) if keep else None
    pointers = (None if x is None else x.data_ptr() for x in (first, last, saved))
    call("kleval_delta_forward", _Forward(*map(_operand, (*operands, o)), *pointers, *_sizes(q, v, g)))
    return o, last, saved


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
        operands = [_readable(x) for x in (q, k, v, g, beta)]
        o, last, saved = _forward(operands, state, True)
        ctx.save_for_backward(*operands, saved)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_last: Tensor) -> Any:
        *operands, saved = ctx.saved_tensors
        q, _, v, g, _ = operands
        d_o, d_last = _readable(d_o), d_last.contiguous()
        gradients = [torch.empty(x.shape, dtype=x.dtype) for x in (*operands, d_last)]
        pointers = (x.data_ptr() for x in (d_last, saved, *gradients))
        call("kleval_delta_backward", _Backward(*map(_operand, (*operands, d_o)), *pointers, *_sizes(q, v, g)))
        return tuple(gradients)
