"""Sparse mixture of experts: sigmoid router with a correction bias, top-k, renormalised, scaled, plus a shared expert.

DeepSeek-V3's "noaux_tc" routing as Kimi Linear uses it (one group, so grouping does nothing): the bias takes part in choosing the
experts, never in weighing them; the chosen scores are normalised to 1 first and multiplied by the scaling factor after.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def route(x: Tensor, gate: Tensor, bias: Tensor, top_k: int, scaling: float) -> tuple[Tensor, Tensor]:
    """x [N, h], gate [E, h], bias [E] -> weights [N, k] float32 (float64 for float64), experts [N, k] int64."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        scores = torch.sigmoid(F.linear(x.to(wide), gate.to(wide)))
        experts = (scores.detach() + bias.to(wide)).topk(top_k, dim=-1).indices
        weights = scores.gather(-1, experts)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * scaling
    return weights, experts


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """W_down(SiLU(W_gate x) * W_up x). x [..., h], gate and up [I, h], down [h, I]."""
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def sparse_experts(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Sum of the chosen experts' outputs. x [N, h], weights and experts [N, k], gate_up [E, 2 I, h], down [E, h, I] -> [N, h].

    Tokens are sorted by expert, so that each expert used is one pair of matrix products over its own tokens.
    """
    top_k = experts.shape[1]
    order = experts.flatten().argsort(stable=True)
    counts = torch.bincount(experts.flatten(), minlength=len(gate_up)).tolist()
    rows = x[order // top_k]  # [N * k, h], grouped by expert
    outputs = []
    for expert, part in enumerate(rows.split(counts)):
        if len(part):
            gate, up = F.linear(part, gate_up[expert]).chunk(2, dim=-1)
            outputs.append(F.linear(F.silu(gate) * up, down[expert]))
    if not outputs:
        return torch.zeros_like(x)
    y = torch.cat(outputs) * weights.flatten()[order].unsqueeze(-1).to(x.dtype)
    return torch.zeros_like(x).index_add(0, order // top_k, y.to(x.dtype))
