"""A sparse MLP in Triton. For few tokens: router, and the chosen experts read where they lie; for many: what is between the
grouped products.

At batch 1 a layer of 256 experts reads 9 of them, shared one included: 3 x 9 x h x I weights once, in two launches. The gate and
up projections are one launch over (token, expert, block of inner channels); the down projection one over (token, block of
outputs), each program summing over its token's experts in their order, so that nothing is added atomically and the same input
gives the same bits. Products are taken in float32 (float64 for float64) and hidden values stay in it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kleval.ops.kda_triton import compute_type

_MAX_TOP_K = 32


@triton.jit
def _silu(x):  # type: ignore[no-untyped-def]
    return x / (1.0 + tl.exp(-x))


@triton.jit
def _gate_up_kernel(  # type: ignore[no-untyped-def]
    x,
    experts,
    gate_up,
    shared_gate,
    shared_up,
    hidden,
    h,
    inner,
    TOP_K: tl.constexpr,
    CHOICES: tl.constexpr,
    BI: tl.constexpr,
    BH: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program (token * CHOICES + choice, block of inner channels); choice TOP_K is the shared expert."""
    pair = tl.program_id(0)
    token = (pair // CHOICES).to(tl.int64)
    choice = pair % CHOICES
    rows = tl.program_id(1) * BI + tl.arange(0, BI)
    inside = rows < inner
    if choice < TOP_K:
        expert = tl.load(experts + token * TOP_K + choice).to(tl.int64)
        gate = gate_up + expert * 2 * inner * h
        up = gate + inner.to(tl.int64) * h
    else:
        gate = shared_gate
        up = shared_up
    total_gate = tl.zeros([BI, BH], dtype=COMPUTE)
    total_up = tl.zeros([BI, BH], dtype=COMPUTE)
    for begin in range(0, h, BH):
        columns = begin + tl.arange(0, BH)
        here = columns < h
        b_x = tl.load(x + token * h + columns, mask=here, other=0.0).to(COMPUTE)
        place = rows[:, None].to(tl.int64) * h + columns[None, :]
        mask = inside[:, None] & here[None, :]
        total_gate += tl.load(gate + place, mask=mask, other=0.0).to(COMPUTE) * b_x[None, :]
        total_up += tl.load(up + place, mask=mask, other=0.0).to(COMPUTE) * b_x[None, :]
    result = _silu(tl.sum(total_gate, 1)) * tl.sum(total_up, 1)
    tl.store(hidden + pair.to(tl.int64) * inner + rows, result, mask=inside)


@triton.jit
def _down_kernel(  # type: ignore[no-untyped-def]
    hidden,
    experts,
    weights,
    down,
    shared_down,
    y,
    h,
    inner,
    TOP_K: tl.constexpr,
    CHOICES: tl.constexpr,
    BH: tl.constexpr,
    BI: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program (token, block of outputs): the weighted sum over the token's experts."""
    token = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * BH + tl.arange(0, BH)
    inside = rows < h
    total = tl.zeros([BH, BI], dtype=COMPUTE)
    for choice in tl.static_range(CHOICES):
        if choice < TOP_K:
            expert = tl.load(experts + token * TOP_K + choice).to(tl.int64)
            weight = tl.load(weights + token * TOP_K + choice).to(COMPUTE)
            matrix = down + expert * h * inner
        else:
            weight = 1.0
            matrix = shared_down
        for begin in range(0, inner, BI):
            columns = begin + tl.arange(0, BI)
            here = columns < inner
            b_h = tl.load(hidden + (token * CHOICES + choice) * inner + columns, mask=here, other=0.0) * weight
            place = rows[:, None].to(tl.int64) * inner + columns[None, :]
            mask = inside[:, None] & here[None, :]
            total += tl.load(matrix + place, mask=mask, other=0.0).to(COMPUTE) * b_h[None, :]
    tl.store(y + token * h + rows, tl.sum(total, 1).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _router_kernel(  # type: ignore[no-untyped-def]
    x,
    gate,
    scores,
    h,
    E,
    BE: tl.constexpr,
    BH: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program (token, block of experts): sigmoid of the router's products."""
    token = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * BE + tl.arange(0, BE)
    inside = rows < E
    total = tl.zeros([BE, BH], dtype=COMPUTE)
    for begin in range(0, h, BH):
        columns = begin + tl.arange(0, BH)
        here = columns < h
        b_x = tl.load(x + token * h + columns, mask=here, other=0.0).to(COMPUTE)
        place = gate + rows[:, None] * h + columns[None, :]
        total += tl.load(place, mask=inside[:, None] & here[None, :], other=0.0).to(COMPUTE) * b_x[None, :]
    tl.store(scores + token * E + rows, 1.0 / (1.0 + tl.exp(-tl.sum(total, 1))), mask=inside)


@triton.jit
def _top_k_kernel(  # type: ignore[no-untyped-def]
    scores,
    bias,
    weights,
    experts,
    E,
    scaling,
    TOP_K: tl.constexpr,
    BK: tl.constexpr,
    BE: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program per token: the TOP_K largest scores + bias, the lower index first among equals; weights from scores alone."""
    token = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BE)
    inside = i < E
    score = tl.load(scores + token * E + i, mask=inside, other=0.0)
    left = tl.where(inside, score + tl.load(bias + i, mask=inside, other=0.0).to(COMPUTE), -float("inf"))
    j = tl.arange(0, BK)
    chosen = tl.zeros([BK], dtype=tl.int32)
    weight = tl.zeros([BK], dtype=COMPUTE)
    for n in tl.static_range(TOP_K):
        best = tl.max(left, 0)
        at = tl.minimum(tl.min(tl.where(left == best, i, BE), 0), E - 1)  # in range even where all is NaN
        chosen = tl.where(j == n, at, chosen)
        weight = tl.where(j == n, tl.sum(tl.where(i == at, score, 0.0), 0), weight)
        left = tl.where(i == at, -float("inf"), left)
    weight = weight / (tl.sum(weight, 0) + 1e-20) * scaling
    tl.store(weights + token * TOP_K + j, weight, mask=j < TOP_K)
    tl.store(experts + token * TOP_K + j, chosen.to(tl.int64), mask=j < TOP_K)


@triton.jit
def _swiglu_kernel(  # type: ignore[no-untyped-def]
    both,
    out,
    inner,
    BI: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program (row, block of inner channels)."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BI + tl.arange(0, BI)
    inside = i < inner
    gate = tl.load(both + row * 2 * inner + i, mask=inside, other=0.0).to(COMPUTE)
    up = tl.load(both + row * 2 * inner + inner + i, mask=inside, other=0.0).to(COMPUTE)
    tl.store(out + row * inner + i, (_silu(gate) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _combine_kernel(  # type: ignore[no-untyped-def]
    y,
    place,
    weights,
    out,
    h,
    TOP_K: tl.constexpr,
    BH: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program (token, block of outputs): its TOP_K rows of y, found through place, in their order."""
    token = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BH + tl.arange(0, BH)
    inside = i < h
    total = tl.zeros([BH], dtype=COMPUTE)
    for j in tl.static_range(TOP_K):
        row = tl.load(place + token * TOP_K + j).to(tl.int64)
        weight = tl.load(weights + token * TOP_K + j).to(COMPUTE)
        total += tl.load(y + row * h + i, mask=inside, other=0.0).to(COMPUTE) * weight
    tl.store(out + token * h + i, total.to(out.dtype.element_ty), mask=inside)


def swiglu_rows(both: Tensor) -> Tensor:
    """SiLU of the left half of each row times its right half: both [M, 2 I] contiguous -> [M, I]."""
    rows, inner = len(both), both.shape[1] // 2
    both = both.contiguous()
    out = torch.empty(rows, inner, dtype=both.dtype, device=both.device)
    _swiglu_kernel[(rows, triton.cdiv(inner, 1024))](both, out, inner, BI=1024, COMPUTE=compute_type(both), num_warps=4)
    return out


def combine(y: Tensor, place: Tensor, weights: Tensor) -> Tensor:
    """Each token's weighted sum: y [N * k, h], place [N * k] the row of y of each pair, weights [N, k] -> [N, h] in y's dtype."""
    tokens, top_k = weights.shape
    y, place, weights = y.contiguous(), place.contiguous(), weights.contiguous()
    out = torch.empty(tokens, y.shape[1], dtype=y.dtype, device=y.device)
    _combine_kernel[(tokens, triton.cdiv(y.shape[1], 512))](
        y, place, weights, out, y.shape[1], TOP_K=top_k, BH=512, COMPUTE=compute_type(y), num_warps=2
    )
    return out


def fits(x: Tensor, gate_up: Tensor) -> bool:
    """Contiguous weights in x's dtype, rows of whole 16-byte reads."""
    return (
        gate_up.is_contiguous()
        and gate_up.dtype == x.dtype
        and gate_up.shape[-1] % 8 == 0
        and gate_up.shape[1] % 16 == 0
    )


def decode_route(x: Tensor, gate: Tensor, bias: Tensor, top_k: int, scaling: float) -> tuple[Tensor, Tensor]:
    """`moe.route` for few tokens: x [N, h], gate [E, h], bias [E] -> weights [N, k] float32 (float64), experts [N, k] int64.

    Scores that are NaN give weights that are; the experts stay in range.
    """
    if top_k > min(_MAX_TOP_K, len(gate)):
        raise ValueError(f"top_k {top_k} of {len(gate)} experts: at most {_MAX_TOP_K}")
    tokens, width = x.shape
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    x, gate = x.contiguous(), gate.contiguous()
    scores = torch.empty(tokens, len(gate), dtype=wide, device=x.device)
    compute = compute_type(x)
    _router_kernel[(tokens, triton.cdiv(len(gate), 4))](
        x, gate, scores, width, len(gate), BE=4, BH=512, COMPUTE=compute, num_warps=4
    )
    weights = torch.empty(tokens, top_k, dtype=wide, device=x.device)
    experts = torch.empty(tokens, top_k, dtype=torch.int64, device=x.device)
    _top_k_kernel[(tokens,)](
        scores,
        bias,
        weights,
        experts,
        len(gate),
        scaling,
        TOP_K=top_k,
        BK=triton.next_power_of_2(top_k),
        BE=triton.next_power_of_2(len(gate)),
        COMPUTE=compute,
        num_warps=1,
    )
    return weights, experts


def decode_experts(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    gate_up: Tensor,
    down: Tensor,
    shared: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """`moe.sparse_experts` for few tokens, and the shared expert in the same launches.

    x [N, h], weights and experts [N, k], gate_up [E, 2 I, h], down [E, h, I], shared: gate, up [I, h] and down [h, I] -> [N, h].
    """
    tokens, top_k = experts.shape
    width, inner = x.shape[1], down.shape[-1]
    matrices = [gate_up, down, *(shared or ())]
    if not all(matrix.is_contiguous() for matrix in matrices):
        raise ValueError("expert weights must be contiguous: they are read where they lie")
    if shared is not None and (shared[0].shape != (inner, width) or shared[2].shape != (width, inner)):
        raise ValueError("the shared expert must have the routed experts' shape")
    x, weights, experts = x.contiguous(), weights.contiguous(), experts.contiguous()
    shared_gate, shared_up, shared_down = shared or (gate_up, gate_up, down)
    choices = top_k + (shared is not None)
    compute = compute_type(x)
    hidden = torch.empty(tokens, choices, inner, dtype=weights.dtype, device=x.device)
    _gate_up_kernel[(tokens * choices, triton.cdiv(inner, 8))](
        x,
        experts,
        gate_up,
        shared_gate,
        shared_up,
        hidden,
        width,
        inner,
        TOP_K=top_k,
        CHOICES=choices,
        BI=8,
        BH=256,
        COMPUTE=compute,
        num_warps=4,
    )
    y = torch.empty_like(x)
    _down_kernel[(tokens, triton.cdiv(width, 4))](
        hidden,
        experts,
        weights,
        down,
        shared_down,
        y,
        width,
        inner,
        TOP_K=top_k,
        CHOICES=choices,
        BH=4,
        BI=min(1024, triton.next_power_of_2(inner)),
        COMPUTE=compute,
        num_warps=4,
    )
    return y
