"""Kimi Delta Attention: the gated delta rule with one decay per channel.

arXiv 2510.26692, Eq. 1 and Listing 1; the same function as fla-core's `fla/ops/kda/naive.py: naive_recurrent_kda`. Log-decays come from
one of two gates (`log_decay`): the unbounded one of Kimi Linear, or one with a lower bound as in Kimi K3 and GLM-5.3-Flash. See
`delta_rule` for the algorithm.

On a CUDA device whole prompts go through fla-core's kernels (`fla_kernels`) and single tokens through a kernel of our own
(`kda_triton`); float32 and float64 operands, gradients and devices without those packages use the torch form everywhere. On a CPU the
C++ form (`native.delta`) computes prompts, single tokens and gradients where it could be built, but for float64.

Multiply-adds per token and head, at chunks of C tokens: 3 K V for the state, about C (K + V) + C K for what is inside a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.ops.available import usable
from kleval.ops.delta_rule import DEFAULT_CHUNK_TOKENS, chunk_delta_rule, recurrent_delta_rule
from kleval.ops.native import delta


def log_decay(x: Tensor, rate: Tensor, lower_bound: float | None = None) -> Tensor:
    """g of the operator from x = f + dt_bias and rate = -exp(A_log), which broadcasts to it: rate softplus(x), or, with a lower bound
    L < 0, L sigmoid(-rate x), which lies between L and 0.

    Sources: fla-core `fla/ops/kda/gate.py: naive_kda_gate, naive_kda_lowerbound_gate`; transformers `Glm5NextTextForgetGate`.
    """
    if lower_bound is None:
        return F.softplus(x).mul(rate)
    return torch.sigmoid(-rate * x).mul(lower_bound)


def recurrent_kda(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Token by token, the reference.

    q, k [B, T, H, K], L2-normalised, not scaled (K^-0.5 is applied here); v [B, T, H, V]; g [B, T, H, K] log-decay <= 0, however
    negative; beta [B, T, H] in [0, 1]; initial_state [B, H, K, V]. Returns o [B, T, H, V] in v's dtype and the final state
    [B, H, K, V] in float32 (float64 for float64 inputs). T may be 0.
    """
    return recurrent_delta_rule(q, k, v, g, beta, initial_state)


def chunk_kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    chunk_size: int = DEFAULT_CHUNK_TOKENS,
    lower_bound: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`recurrent_kda`, a chunk of tokens at a time; any T. Differentiable once.

    chunk_size: a power of two, of the torch form; fla's kernels have their own, the C++ form has none. lower_bound: no g lies below
    it, where that is known; fla's kernels have a faster form for gates of at least -5, to the others it is nothing.
    """
    if usable("kda", q.device) and not torch.is_grad_enabled():
        from kleval.ops import fla_kernels

        if fla_kernels.fits(q, v):
            return fla_kernels.chunk_kda(q, k, v, g, beta, initial_state, lower_bound)
    if delta.fits(q):
        return delta.delta_rule(q, k, v, g, beta, initial_state)
    return chunk_delta_rule(q, k, v, g, beta, initial_state, chunk_size)


def step_kda(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: shapes of `recurrent_kda` with T = 1. state [B, H, K, V] is updated in place and returned; no gradient."""
    if usable("step", q.device):
        from kleval.ops import kda_triton

        if kda_triton.fits(q, v, state):
            return kda_triton.step(q, k, v, g, beta, state), state
    if delta.fits(q) and state.is_contiguous():
        return delta.step_in_place(q, k, v, g, beta, state), state
    return step_delta_rule(q, k, v, g, beta, state), state


def step_delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """The torch form of one token, for KDA (g [B, 1, H, K]) and GDN (g [B, 1, H, 1]); updates state in place."""
    out_dtype = v.dtype
    q, k, v, g, beta = (x.squeeze(1).to(state.dtype) for x in (q, k, v, g, beta))
    scale = q.shape[-1] ** -0.5
    state.mul_(g.exp().unsqueeze(-1))
    read = torch.stack([k, q], -2) @ state  # [B, H, 2, V]: one walk over the state for both
    error = (v - read[:, :, 0]) * beta.unsqueeze(-1)
    o = (read[:, :, 1] + (q * k).sum(-1, keepdim=True) * error) * scale
    state.addcmul_(k.unsqueeze(-1), error.unsqueeze(-2))
    return o.to(out_dtype).unsqueeze(1)
