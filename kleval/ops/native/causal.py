"""Causal attention of sequences with themselves in C++, forward and backward, for training on a CPU (`causal.cpp`); float32."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kleval.ops.native.delta import call
from kleval.ops.native.loading import native

_POINTERS = ["q", "k", "v", "out", "logs", "d_out", "d_q", "d_k", "d_v"]
_SIZES = ["units", "tokens", "width", "value", "threads"]


class _Arguments(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_void_p) for name in _POINTERS), *((name, ctypes.c_int64) for name in _SIZES))


def fits(q: Tensor) -> bool:
    """Whether such operands are handed to the library."""
    return q.device.type == "cpu" and q.dtype != torch.float64 and native() is not None


class CausalAttention(torch.autograd.Function):
    """q (scaled), k [N, T, D], v [N, T, Dv], float32 -> [N, T, Dv]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.contiguous() for x in (q, k, v))
        out, logs = torch.empty_like(v), q.new_empty(q.shape[:2])
        _run("kleval_causal_forward", (q, k, v, out, logs))
        ctx.save_for_backward(q, k, v, out, logs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> Any:
        q, k, v, out, logs = ctx.saved_tensors
        gradients = tuple(torch.empty_like(x) for x in (q, k, v))
        _run("kleval_causal_backward", (q, k, v, out, logs, d_out.contiguous(), *gradients))
        return gradients


def _run(name: str, tensors: tuple[Tensor, ...]) -> None:
    q, _, v, *_ = tensors
    places = [x.data_ptr() for x in tensors] + [None] * (len(_POINTERS) - len(tensors))
    call(name, _Arguments(*places, *q.shape, v.shape[-1], torch.get_num_threads()))
