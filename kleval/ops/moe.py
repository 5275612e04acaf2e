"""Sparse mixture of experts: sigmoid router with a correction bias, top-k, renormalised, scaled, plus a shared expert.

DeepSeek-V3's "noaux_tc" routing as Kimi Linear uses it (one group, so grouping does nothing): the bias takes part in choosing the
experts, never in weighing them; the chosen scores are normalised to 1 first and multiplied by the scaling factor after.
On CUDA, without gradients, experts run in `grouped`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def route(x: Tensor, gate: Tensor, bias: Tensor, top_k: int, scaling: float) -> tuple[Tensor, Tensor]:
    """x [N, h], gate [E, h], bias [E] -> weights [N, k] float32 (float64 for float64), experts [N, k] int64."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    if not torch.is_autocast_enabled(x.device.type):
        return _route(x.to(wide), gate.to(wide), bias.to(wide), top_k, scaling)
    with torch.autocast(x.device.type, enabled=False):
        return _route(x.to(wide), gate.to(wide), bias.to(wide), top_k, scaling)


def _route(x: Tensor, gate: Tensor, bias: Tensor, top_k: int, scaling: float) -> tuple[Tensor, Tensor]:
    scores = torch.sigmoid(F.linear(x, gate))
    experts = (scores.detach() + bias).topk(top_k, dim=-1).indices
    weights = scores.gather(-1, experts)
    return weights / (weights.sum(-1, keepdim=True) + 1e-20) * scaling, experts


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """W_down(SiLU(W_gate x) * W_up x). x [..., h], gate and up [I, h], down [h, I]."""
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def sparse_experts(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Sum of the chosen experts' outputs. x [N, h], weights and experts [N, k], gate_up [E, 2 I, h], down [E, h, I] -> [N, h].

    Tokens are sorted by expert, so that each expert used is one pair of matrix products over its own tokens.
    """
    if x.is_cuda and not torch.is_grad_enabled():
        from kleval.ops.grouped import grouped_experts

        return grouped_experts(x, weights, experts, gate_up, down)
    tokens, top_k = experts.shape
    flat = experts.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=len(gate_up)).tolist()
    source = order // top_k
    rows = x[source]  # [N * k, h], grouped by expert
    outputs = []
    for expert, part in enumerate(rows.split(counts)):
        if len(part):
            gate, up = F.linear(part, gate_up[expert]).chunk(2, dim=-1)
            outputs.append(F.linear(F.silu(gate) * up, down[expert]))
    if not outputs:
        return torch.zeros_like(x)
    y = torch.cat(outputs)
    if torch.is_grad_enabled():
        y = y * weights.flatten()[order].unsqueeze(-1).to(x.dtype)
        return torch.zeros_like(x).index_add(0, source, y.to(x.dtype))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return y[place].view(tokens, top_k, -1).mul_(weights.to(x.dtype).unsqueeze(-1)).sum(1)
