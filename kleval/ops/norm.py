"""Normalisations: RMSNorm, head-wise RMSNorm with a sigmoid output gate (KDA, GDN), and L2 norm of queries and keys.

All compute in float32 (float64 for float64) and return their input's dtype. The L2 norm adds 1e-6 to the sum of squares, as fla-core
and transformers do; llama.cpp and MLX differ slightly there. Gradients are written by hand: on a CPU these are memory traffic,
and autograd's version of the same costs about twice as much of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

RMS_EPS = 1e-5
L2_EPS = 1e-6


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def rms_norm(x: Tensor, weight: Tensor, eps: float = RMS_EPS) -> Tensor:
    """x / sqrt(mean x^2 + eps) * weight over the last dimension. x [..., D], weight [D]."""
    y: Tensor = _Normalise.apply(_wide(x), _wide(weight), 1.0 / x.shape[-1], eps)
    return y.to(x.dtype)


def gated_rms_norm(x: Tensor, weight: Tensor, gate: Tensor, eps: float = RMS_EPS) -> Tensor:
    """Head-wise: RMSNorm over the last dimension, times sigmoid(gate). x, gate [..., H, D], weight [D]."""
    return (rms_norm(_wide(x), weight, eps) * torch.sigmoid(_wide(gate))).to(x.dtype)


def l2_norm(x: Tensor, eps: float = L2_EPS) -> Tensor:
    """x / sqrt(sum x^2 + eps) over the last dimension."""
    y: Tensor = _Normalise.apply(_wide(x), None, 1.0, eps)
    return y.to(x.dtype)


class _Normalise(torch.autograd.Function):
    """x * (share * sum x^2 + eps)^-0.5 [* weight]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, share: float, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().mul_(share).add_(eps).rsqrt_()
        y = x * inverse
        ctx.save_for_backward(x, inverse, weight)
        ctx.share = share
        return y if weight is None else y.mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, inverse, weight = ctx.saved_tensors
        y = x * inverse  # normalised, without weight
        along = d_y * y
        d_weight = None
        if weight is None:
            d_x, part = d_y * inverse, along.sum(-1, keepdim=True)
        else:
            d_weight = along.flatten(0, -2).sum(0)
            d_x, part = (d_y * weight).mul_(inverse), (along @ weight).unsqueeze(-1)
        d_x.addcmul_(y, part.mul_(inverse), value=-ctx.share)
        return d_x, d_weight, None, None
