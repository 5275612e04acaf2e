"""Gated DeltaNet: the gated delta rule with one decay per head.

arXiv 2412.06464; official source: fla-core `fla/ops/gated_delta_rule`. See `delta_rule` for the algorithm.
"""

from __future__ import annotations

from torch import Tensor

from kleval.ops.delta_rule import DEFAULT_CHUNK_TOKENS, chunk_delta_rule, recurrent_delta_rule


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
    """`recurrent_gdn`, a chunk of tokens at a time; any T. chunk_size: a power of two. Differentiable once."""
    return chunk_delta_rule(q, k, v, g.unsqueeze(-1), beta, initial_state, chunk_size)
