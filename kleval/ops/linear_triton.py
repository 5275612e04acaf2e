"""Triton kernels around the delta rule of a KDA or GDN layer: short convolution, gated head norm, norm with its residual sum.

The convolution is that of one token with its tail shifted in place, or of a prompt with the norm of queries and keys.

Each reads and writes every value once; the torch forms, a few operations each, walk over them several times and take a launch for
each. Computed in float32 (float64 for float64); what the torch forms round to the activations' dtype in between is not rounded.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kleval.ops.kda_triton import compute_type, sigmoid, warps_for
from kleval.ops.norm import L2_EPS, RMS_EPS

_CONV_CHANNELS = 256
_PROMPT_TOKENS = 16


@triton.jit
def _conv_kernel(  # type: ignore[no-untyped-def]
    x,
    taps,
    tail,
    y,
    D,
    x_row,
    taps_channel,
    taps_time,
    tail_row,
    tail_channel,
    tail_time,
    W: tl.constexpr,
    BD: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program (b, block of channels): each channel's window is its own, so the tail may be shifted in place."""
    b = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    inside = d < D
    d = d.to(tl.int64)
    tap = taps + d * taps_channel
    row = tail + b * tail_row + d * tail_channel
    new = tl.load(x + b * x_row + d, mask=inside, other=0.0)
    total = tl.load(tap + (W - 1) * taps_time, mask=inside, other=0.0).to(COMPUTE) * new.to(COMPUTE)
    for i in tl.static_range(W - 1):
        old = tl.load(row + i * tail_time, mask=inside, other=0.0)
        total += tl.load(tap + i * taps_time, mask=inside, other=0.0).to(COMPUTE) * old.to(COMPUTE)
        if i > 0:
            tl.store(row + (i - 1) * tail_time, old, mask=inside)
    if W > 1:
        tl.store(row + (W - 2) * tail_time, new.to(tail.dtype.element_ty), mask=inside)
    tl.store(y + b * D + d, (total * sigmoid(total)).to(y.dtype.element_ty), mask=inside)


def conv_step(x: Tensor, taps: Tensor, tail: Tensor) -> Tensor:
    """`short_conv` for one token: x [B, D] (rows contiguous), taps [D, W], tail [B, D, W - 1] shifted in place -> SiLU [B, D]."""
    batch, channels = x.shape
    y = torch.empty(batch, channels, dtype=x.dtype, device=x.device)
    _conv_kernel[(batch, triton.cdiv(channels, _CONV_CHANNELS))](
        x,
        taps,
        tail,
        y,
        channels,
        x.stride(0),
        *taps.stride(),
        *tail.stride(),
        W=taps.shape[-1],
        BD=_CONV_CHANNELS,
        COMPUTE=compute_type(x),
        num_warps=4,
    )
    return y


@triton.jit
def _prepare_kernel(  # type: ignore[no-untyped-def]
    x,
    taps,
    tail,
    out,
    T,
    eps,
    part,
    x_batch,
    x_row,
    taps_channel,
    taps_time,
    tail_row,
    tail_channel,
    tail_time,
    H: tl.constexpr,
    D: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program (sequence and block of tokens, head of q, k or v). part: elements of one of the three outputs."""
    blocks = tl.cdiv(T, BT)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    t = ((tl.program_id(0) % blocks) * BT + tl.arange(0, BT)).to(tl.int64)
    head = tl.program_id(1)
    i = tl.arange(0, BD)
    d = (head * D + i).to(tl.int64)
    has_d = i < D
    total = tl.zeros([BT, BD], dtype=COMPUTE)
    for j in tl.static_range(W):
        at = t + j - (W - 1)
        here = ((at >= 0) & (at < T))[:, None] & has_d[None, :]
        value = tl.load(x + b * x_batch + at[:, None] * x_row + d[None, :], mask=here, other=0.0).to(COMPUTE)
        before = (at < 0)[:, None] & has_d[None, :]
        old = tail + b * tail_row + d[None, :] * tail_channel + (at[:, None] + W - 1) * tail_time
        value += tl.load(old, mask=before, other=0.0).to(COMPUTE)
        tap = tl.load(taps + d * taps_channel + j * taps_time, mask=has_d, other=0.0).to(COMPUTE)
        total += value * tap[None, :]
    total = total * sigmoid(total)
    if head < 2 * H:
        total = total / tl.sqrt(tl.sum(total * total, 1) + eps)[:, None]
    to = out + (head // H).to(tl.int64) * part + ((b * T + t[:, None]) * H + head % H) * D + i[None, :]
    tl.store(to, total.to(out.dtype.element_ty), mask=(t < T)[:, None] & has_d[None, :])


def prepare(x: Tensor, taps: Tensor, tail: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution, SiLU and, for queries and keys, the L2 norm of a whole prompt, each value read and written once.

    x [B, T, 3 H D] (channels contiguous): projected q, k, v; taps [3 H D, W]; tail [B, 3 H D, W - 1] the inputs before x.
    Returns q, k (normalised) and v, contiguous [B, T, H, D] each. The tail stays as it is.
    """
    batch, tokens, channels = x.shape
    dim = channels // (3 * heads)
    out = torch.empty(3, batch, tokens, heads, dim, dtype=x.dtype, device=x.device)
    if tokens and batch:
        _prepare_kernel[(batch * triton.cdiv(tokens, _PROMPT_TOKENS), 3 * heads)](
            x,
            taps,
            tail,
            out,
            tokens,
            L2_EPS,
            batch * tokens * heads * dim,
            x.stride(0),
            x.stride(1),
            *taps.stride(),
            *tail.stride(),
            H=heads,
            D=dim,
            W=taps.shape[-1],
            BT=_PROMPT_TOKENS,
            BD=triton.next_power_of_2(dim),
            COMPUTE=compute_type(x),
            num_warps=4,
        )
    return out[0], out[1], out[2]


@triton.jit
def _gated_norm_kernel(  # type: ignore[no-untyped-def]
    o,
    weight,
    gate,
    y,
    eps,
    gate_row,
    H: tl.constexpr,
    V: tl.constexpr,
    BV: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program b * H + h: one head of one row."""
    program = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BV)
    inside = j < V
    b_o = tl.load(o + program * V + j, mask=inside, other=0.0).to(COMPUTE)
    b_w = tl.load(weight + j, mask=inside, other=0.0).to(COMPUTE)
    b_gate = tl.load(gate + (program // H) * gate_row + (program % H) * V + j, mask=inside, other=0.0).to(COMPUTE)
    b_o = b_o / tl.sqrt(tl.sum(b_o * b_o, 0) / V + eps) * b_w * sigmoid(b_gate)
    tl.store(y + program * V + j, b_o.to(y.dtype.element_ty), mask=inside)


def gated_norm_step(o: Tensor, weight: Tensor, gate: Tensor, eps: float = RMS_EPS) -> Tensor:
    """`norm.gated_rms_norm`: o [B, H, V] contiguous, weight [V], gate [B, H * V] (rows contiguous) -> [B, H * V] in gate's dtype."""
    batch, heads, values = o.shape
    y = torch.empty(batch, heads * values, dtype=gate.dtype, device=gate.device)
    _gated_norm_kernel[(batch * heads,)](
        o,
        weight,
        gate,
        y,
        eps,
        gate.stride(0),
        H=heads,
        V=values,
        BV=triton.next_power_of_2(values),
        COMPUTE=compute_type(o),
        num_warps=1,
    )
    return y


@triton.jit
def _add_norm_kernel(  # type: ignore[no-untyped-def]
    x,
    more,
    weight,
    y,
    eps,
    D,
    BD: tl.constexpr,
    ADD: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Program b: x += more in place, then RMSNorm of the sum as it was rounded."""
    b = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BD)
    inside = d < D
    b_x = tl.load(x + b * D + d, mask=inside, other=0.0)
    if ADD:
        b_x = (b_x.to(COMPUTE) + tl.load(more + b * D + d, mask=inside, other=0.0).to(COMPUTE)).to(x.dtype.element_ty)
        tl.store(x + b * D + d, b_x, mask=inside)
    b_x = b_x.to(COMPUTE)
    b_x = b_x / tl.sqrt(tl.sum(b_x * b_x, 0) / D + eps) * tl.load(weight + d, mask=inside, other=0.0).to(COMPUTE)
    tl.store(y + b * D + d, b_x.to(y.dtype.element_ty), mask=inside)


def add_norm(x: Tensor, more: Tensor | None, weight: Tensor, eps: float = RMS_EPS) -> Tensor:
    """x [B, D] += more [B, D] in place (None: nothing), then `norm.rms_norm(x, weight)`. All contiguous, D <= 65536."""
    batch, width = x.shape
    if not x.is_contiguous() or (more is not None and not more.is_contiguous()):
        raise ValueError("both addends must be contiguous: the sum is taken in place")
    y = torch.empty_like(x)
    _add_norm_kernel[(batch,)](
        x,
        more,
        weight,
        y,
        eps,
        width,
        BD=triton.next_power_of_2(width),
        ADD=more is not None,
        COMPUTE=compute_type(x),
        num_warps=warps_for(triton.next_power_of_2(width), 8),
    )
    return y
