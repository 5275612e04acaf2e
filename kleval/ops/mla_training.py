"""The training form of multi-head latent attention: expanded, causal, differentiable once, never [T, T]. On a CPU in C++ where there
is a library (`ops.native.causal`), the same function up to rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kleval.ops.native.causal import CausalAttention, fits

TRAINING_QUERY_TOKENS = 64


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, block: int = TRAINING_QUERY_TOKENS) -> Tensor:
    """Causal attention of a sequence with itself, differentiable once. q, k [B, H, T, D], v [B, H, T, Dv] -> [B, H, T, Dv].

    A block of queries at a time against the keys up to its own end: half the work of a masked [T, T]. Where keys and values
    differ in width torch's fused attention falls back to [T, T] on a CPU; this is faster there, and kept for the gradient are
    the weights of the lower triangle alone. Computes in float32 (float64 for float64).
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        operands = [x.to(wide).flatten(0, 1) for x in (q * scale, k, v)]
        o: Tensor = CausalAttention.apply(*operands) if fits(operands[0]) else _CausalAttention.apply(*operands, block)
    return o.view(v.shape).to(v.dtype)


class _CausalAttention(torch.autograd.Function):
    """q (scaled), k [N, T, D], v [N, T, Dv] -> [N, T, Dv]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        out = torch.empty_like(v)
        kept = []
        for begin in range(0, q.shape[1], block):
            part = q[:, begin : begin + block]
            end = begin + part.shape[1]
            future = part.new_full((part.shape[1], end), -torch.inf).triu_(begin + 1)
            weights = torch.baddbmm(future, part, k[:, :end].transpose(1, 2)).softmax(-1)
            out[:, begin:end] = torch.bmm(weights, v[:, :end])
            kept.append(weights)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(q, k, v, out, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, *kept = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        along = (d_out * out).sum(-1, keepdim=True)
        begin = 0
        with torch.autocast(q.device.type, enabled=False):
            for weights in kept:
                end = begin + weights.shape[1]
                d_part = d_out[:, begin:end]
                d_v[:, :end].baddbmm_(weights.transpose(1, 2), d_part)
                d_scores = torch.bmm(d_part, v[:, :end].transpose(1, 2)).sub_(along[:, begin:end]).mul_(weights)
                d_q[:, begin:end] = torch.bmm(d_scores, k[:, :end])
                d_k[:, :end].baddbmm_(d_scores.transpose(1, 2), q[:, begin:end])
                begin = end
        return d_q, d_k, d_v, None
