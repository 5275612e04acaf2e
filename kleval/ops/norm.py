"""Normalisations: RMSNorm, head-wise RMSNorm with a sigmoid output gate (KDA, GDN), and L2 norm of queries and keys.

All compute in float32 (float64 for float64) and return their input's dtype. The L2 norm adds 1e-6 to the sum of squares, as fla-core
and transformers do; llama.cpp and MLX differ slightly there. Gradients are written by hand: on a CPU these are memory traffic,
and autograd's version of the same costs about twice as much of it. Without gradients the same arithmetic runs outside autograd,
whose custom functions cost more per call than a decoded token's norm.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

RMS_EPS = 1e-5
L2_EPS = 1e-6


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def rms_norm(x: Tensor, weight: Tensor, eps: float = RMS_EPS) -> Tensor:
    """x / sqrt(mean x^2 + eps) * weight over the last dimension. x [..., D], weight [D]."""
    if x.is_cuda and not torch.is_grad_enabled():
        return F.rms_norm(_wide(x), weight.shape, _wide(weight), eps).to(x.dtype)
    y = _normalise(_wide(x), _wide(weight), 1.0 / x.shape[-1], eps)
    return y if y.dtype == x.dtype else y.to(x.dtype)


def gated_rms_norm(x: Tensor, weight: Tensor, gate: Tensor, eps: float = RMS_EPS) -> Tensor:
    """Head-wise: RMSNorm over the last dimension, times sigmoid(gate). x, gate [..., H, D], weight [D]."""
    normed, gate = rms_norm(_wide(x), weight, eps), torch.sigmoid(_wide(gate))
    y = normed * gate if torch.is_grad_enabled() else normed.mul_(gate)
    return y if y.dtype == x.dtype else y.to(x.dtype)


def l2_norm(x: Tensor, eps: float = L2_EPS) -> Tensor:
    """x / sqrt(sum x^2 + eps) over the last dimension."""
    y = _normalise(_wide(x), None, 1.0, eps)
    return y if y.dtype == x.dtype else y.to(x.dtype)


def _normalise(x: Tensor, weight: Tensor | None, share: float, eps: float) -> Tensor:
    if torch.is_grad_enabled() and (x.requires_grad or (weight is not None and weight.requires_grad)):
        y: Tensor = _Normalise.apply(x, weight, share, eps)
        return y
    y = x * inverse_norm(x, share, eps)
    return y if weight is None else y.mul_(weight)


def inverse_norm(x: Tensor, share: float, eps: float) -> Tensor:
    """(share * sum x^2 + eps)^-0.5 over the last dimension, kept."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(_constant(eps, x.dtype, x.device), norm, norm, value=share).rsqrt_()


@functools.cache
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((), value, dtype=dtype, device=device)


class _Normalise(torch.autograd.Function):
    """x * (share * sum x^2 + eps)^-0.5 [* weight]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, share: float, eps: float) -> Tensor:
        inverse = inverse_norm(x, share, eps)
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
