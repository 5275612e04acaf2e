"""Gated DeltaNet: the gated delta rule with one decay per head.

arXiv 2412.06464; official source: fla-core `fla/ops/gated_delta_rule`. See `delta_rule` for the algorithm, `kda` for what runs on
which device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kleval.ops.available import usable
from kleval.ops.delta_rule import DEFAULT_CHUNK_TOKENS, chunk_delta_rule, recurrent_delta_rule
from kleval.ops.kda import step_kda
from kleval.ops.native import delta


def recurrent_gdn(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Token by token, the reference. As `recurrent_kda`, with g [B, T, H]."""
    return recurrent_delta_rule(q, k, v, g.unsqueeze(-1), beta, initial_state)


def chunk_gdn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    chunk_size: int = DEFAULT_CHUNK_TOKENS,
) -> tuple[Tensor, Tensor]:
    """`recurrent_gdn`, a chunk of tokens at a time; any T. Differentiable once.

    chunk_size: a power of two, of the torch form; fla's kernels have their own, the C++ form has none.
    """
    if usable("gdn", q.device) and not torch.is_grad_enabled():
        from kleval.ops import fla_kernels

        if fla_kernels.fits(q, v):
            return fla_kernels.chunk_gdn(q, k, v, g, beta, initial_state)
    if delta.fits(q):
        return delta.delta_rule(q, k, v, g, beta, initial_state)
    return chunk_delta_rule(q, k, v, g.unsqueeze(-1), beta, initial_state, chunk_size)


def step_gdn(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: shapes of `recurrent_gdn` with T = 1. state [B, H, K, V] is updated in place and returned; no gradient."""
    return step_kda(q, k, v, g.unsqueeze(-1), beta, state)
