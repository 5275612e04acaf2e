"""One decoded token's delta rule in Triton, for KDA and GDN.

The step reads and writes the state once, in place: 2 x 4 K V bytes per head, which at batch 1 takes less time than launching the
dozen kernels of the torch form. One program owns a block of the state's columns (all K rows of some V), so that programs share
nothing. Queries and keys may come raw: their L2 norm (epsilon 1e-6 on the sum of squares), the softplus gate and the sigmoid of
beta are then computed inside, in float32 like everything else here (float64 for a float64 state).

Sources: arXiv 2510.26692 Eq. 1; the same function as fla-core's `fla/ops/kda/fused_recurrent.py`, whose state stays out of place.
The rest of such a layer is in `linear_triton`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kleval.ops.norm import L2_EPS

_STEP_VALUES = 32  # columns of the state per program: at batch 1 and 32 heads of 128 that makes 128 programs


@triton.jit
def _softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + exp x), exact to rounding where exp x is tiny; x itself above 20, as torch has it."""
    e = tl.exp(tl.minimum(x, 20.0))
    u = 1.0 + e
    small = u == 1.0
    # log(u) / (u - 1) corrects for what rounding 1 + e has lost (W. Kahan's log1p).
    log1p = tl.where(small, e, tl.log(u) * e / tl.where(small, 1.0, u - 1.0))
    return tl.where(x > 20.0, x, log1p)


@triton.jit
def sigmoid(x):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _step_kernel(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    g,
    beta,
    a_log,
    dt_bias,
    state,
    o,
    scale,
    eps,
    q_row,
    k_row,
    v_row,
    g_row,
    beta_row,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    RAW: tl.constexpr,
    BOUND: tl.constexpr,
):
    """Program (b * H + h, block of V). *_row: distance between the batch's rows of q, k, v, g, beta in elements."""
    program = tl.program_id(0).to(tl.int64)
    b = program // H
    h = program % H
    wide = state.dtype.element_ty
    i = tl.arange(0, BK)
    j = tl.program_id(1) * BV + tl.arange(0, BV)
    has_k = i < K
    has_v = j < V
    b_q = tl.load(q + b * q_row + h * K + i, mask=has_k, other=0.0).to(wide)
    b_k = tl.load(k + b * k_row + h * K + i, mask=has_k, other=0.0).to(wide)
    b_v = tl.load(v + b * v_row + h * V + j, mask=has_v, other=0.0).to(wide)
    b_beta = tl.load(beta + b * beta_row + h).to(wide)
    if PER_CHANNEL:
        b_g = tl.load(g + b * g_row + h * K + i, mask=has_k, other=0.0).to(wide)
    else:
        b_g = tl.load(g + b * g_row + h).to(wide)
    if RAW:
        b_q = b_q / tl.sqrt(tl.sum(b_q * b_q, 0) + eps)
        b_k = b_k / tl.sqrt(tl.sum(b_k * b_k, 0) + eps)
        b_beta = sigmoid(b_beta)
        rate = tl.exp(tl.load(a_log + h).to(wide))
        if PER_CHANNEL:
            b_g = b_g + tl.load(dt_bias + h * K + i, mask=has_k, other=0.0).to(wide)
        else:
            b_g = b_g + tl.load(dt_bias + h).to(wide)
        if BOUND < 0.0:
            b_g = BOUND * sigmoid(rate * b_g)
        else:
            b_g = -rate * _softplus(b_g)
    place = state + program * K * V + i[:, None] * V + j[None, :]
    inside = has_k[:, None] & has_v[None, :]
    s = tl.load(place, mask=inside, other=0.0)
    if PER_CHANNEL:
        s = s * tl.exp(b_g)[:, None]
    else:
        s = s * tl.exp(b_g)
    error = (b_v - tl.sum(s * b_k[:, None], 0)) * b_beta
    s = s + b_k[:, None] * error[None, :]
    tl.store(place, s, mask=inside)
    b_o = tl.sum(s * (b_q * scale)[:, None], 0)
    tl.store(o + program * V + j, b_o.to(o.dtype.element_ty), mask=has_v)


def fits(q: Tensor, v: Tensor, state: Tensor) -> bool:
    """One token, a head that fits a program's registers, a contiguous float32 (in tests float64) state."""
    one = q.shape[1] == 1 and len(q) > 0
    return one and q.shape[-1] <= 256 and state.is_contiguous() and state.dtype in (torch.float32, torch.float64)


def step(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """`kda.step_kda`: q, k [B, 1, H, K] normalised, v [B, 1, H, V], g [B, 1, H, K] or [B, 1, H, 1], beta [B, 1, H].

    state [B, H, K, V] is updated in place. Returns o [B, 1, H, V] in v's dtype.
    """
    q, k, v, g, beta = (x if x[0].is_contiguous() else x.contiguous() for x in (q, k, v, g, beta))
    o = torch.empty_like(v, memory_format=torch.contiguous_format)
    _launch_step(q, k, v, g, beta, None, None, state, o, g.shape[-1] > 1 or q.shape[-1] == 1)
    return o


def raw_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    f: Tensor,
    b: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    per_channel: bool,
    lower_bound: float | None = None,
) -> Tensor:
    """The same from what the projections and convolutions give.

    q, k [B, H * K], v [B, H * V] after convolution and SiLU; f [B, H * K] (KDA) or [B, H] (GDN), so that
    g = -exp(a_log) softplus(f + dt_bias), or lower_bound sigmoid(exp(a_log) (f + dt_bias)); b [B, H], beta = sigmoid(b). a_log H
    elements, dt_bias H * K or H. Rows contiguous, with any distance between them. Returns o [B, H, V] in float32 (float64 for a float64
    state).
    """
    batch, heads, _, values = state.shape
    o = torch.empty(batch, heads, values, dtype=state.dtype, device=state.device)
    _launch_step(q, k, v, f, b, a_log, dt_bias, state, o, per_channel, lower_bound)
    return o


def _launch_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    a_log: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    o: Tensor,
    per_channel: bool,
    lower_bound: float | None = None,
) -> None:
    batch, heads, width, values = state.shape
    if not state.is_contiguous():
        raise ValueError("the state must be contiguous: it is updated in place")
    columns = min(_STEP_VALUES, triton.next_power_of_2(values))
    grid = (batch * heads, triton.cdiv(values, columns))
    _step_kernel[grid](
        q,
        k,
        v,
        g,
        beta,
        a_log,
        dt_bias,
        state,
        o,
        width**-0.5,
        L2_EPS,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        g.stride(0),
        beta.stride(0),
        H=heads,
        K=width,
        V=values,
        BK=triton.next_power_of_2(width),
        BV=columns,
        PER_CHANNEL=per_channel,
        RAW=a_log is not None,
        BOUND=lower_bound or 0.0,
        num_warps=warps_for(triton.next_power_of_2(width) * columns, 4),
    )


def warps_for(elements: int, most: int) -> int:
    """So many that no element has two threads: a second one could read what the first has already updated in place."""
    return max(1, min(most, elements // 64))


def compute_type(x: Tensor) -> tl.dtype:
    """What kernels compute in: float32, float64 for float64."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32
