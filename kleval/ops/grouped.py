"""Routed experts without a loop over experts and without waiting for the host.

Many tokens: rows are sorted by expert on the device and every expert's rows are one group of a grouped matrix product
(torch's `grouped_mm`, whose group ends stay on the device), twice. Few tokens: a Triton kernel per projection in which each
(token, expert) pair reads its expert's weights where they lie (`moe_triton`); nothing is gathered or copied. Both sum the experts
of a token in a fixed order, so the same input gives the same bits.

Weights read per layer, out of E experts: all of them for many tokens; for n tokens at most n k, of which repeated choices are read
again. Under uniform routing over 256 experts, top-8, that is 8 % more than the distinct ones at 6 tokens, 25 % at 16: from there on
the grouped form.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.ops.available import usable

FEW_TOKENS = 16


def grouped_experts(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Sum of the chosen experts' outputs. x [N, h], weights and experts [N, k], gate_up [E, 2 I, h], down [E, h, I] -> [N, h].

    No gradient. On a CPU, and wherever no kernel is usable, the torch forms below.
    """
    if 0 < len(x) <= FEW_TOKENS and usable("experts_decode", x.device):
        from kleval.ops import moe_triton

        if moe_triton.fits(x, gate_up):
            return moe_triton.decode_experts(x, weights, experts, gate_up, down)
    if len(x) and usable("experts", x.device) and _aligned(x, gate_up):
        return sorted_experts(x, weights, experts, gate_up, down)
    return looped_experts(x, weights, experts, gate_up, down)


def sorted_experts(
    x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor, fused: bool | None = None
) -> Tensor:
    """The form for many tokens. Shapes of `grouped_experts`; works on a CPU too, where torch loops over the groups.

    fused: what is between the products by Triton kernels (None: where they are usable), which read each value once.
    """
    tokens, top_k = experts.shape
    flat = experts.flatten()
    order = flat.argsort(stable=True)  # [N * k] pairs by expert
    # Counting by scatter: torch.bincount would wait for the host to know its largest value.
    counts = torch.zeros(len(gate_up), dtype=torch.int32, device=x.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    ends = counts.cumsum(0, dtype=torch.int32)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=x.device)
    rows = x.index_select(0, order // top_k)  # [N * k, h]
    both = _grouped_mm(rows, gate_up, ends)  # [N * k, 2 I]
    if usable("experts_decode", x.device) if fused is None else fused:
        from kleval.ops import moe_triton

        y = _grouped_mm(moe_triton.swiglu_rows(both), down, ends)
        return moe_triton.combine(y, place, weights)
    gate, up = both.chunk(2, dim=-1)
    y = _grouped_mm(F.silu(gate) * up, down, ends)  # [N * k, h], by expert
    y = y.index_select(0, place).view(tokens, top_k, -1)
    return torch.bmm(weights.to(x.dtype).unsqueeze(1), y).squeeze(1)


def looped_experts(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Expert by expert, for devices without the kernels; asks the device once which experts were chosen."""
    out = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
    for expert in experts.unique().tolist():
        token, choice = (experts == expert).nonzero(as_tuple=True)
        gate, up = F.linear(x[token], gate_up[expert]).chunk(2, dim=-1)
        y = F.linear(F.silu(gate) * up, down[expert])
        out.index_add_(0, token, y.to(out.dtype) * weights[token, choice].unsqueeze(-1).to(out.dtype))
    return out.to(x.dtype)


def _grouped_mm(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """rows [M, D] in groups that end at ends [E], matrices [E, F, D] -> [M, F]."""
    product = getattr(F, "grouped_mm", None) or torch._grouped_mm
    result: Tensor = product(rows, matrices.transpose(-1, -2), offs=ends)
    return result


def _aligned(x: Tensor, gate_up: Tensor) -> bool:
    """torch's kernel takes bfloat16 with rows of a multiple of 16 bytes."""
    return x.dtype == torch.bfloat16 and gate_up.shape[-1] % 8 == 0 and gate_up.shape[1] % 16 == 0
