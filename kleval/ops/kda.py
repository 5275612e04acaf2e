"""Kimi Delta Attention: the gated delta rule with one decay per channel.

arXiv 2510.26692, Eq. 1 and Listing 1; the same function as fla-core's `fla/ops/kda/naive.py: naive_recurrent_kda`. The gate is the
unbounded one of the released Kimi Linear, not the later lower-bound gate. See `delta_rule` for the algorithm.

Multiply-adds per token and head, at chunks of C tokens: 3 K V for the state, about C (K + V) + C K for what is inside a chunk.
"""

from __future__ import annotations

from torch import Tensor

from kleval.ops.delta_rule import DEFAULT_CHUNK_TOKENS, chunk_delta_rule, recurrent_delta_rule


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
) -> tuple[Tensor, Tensor]:
    """`recurrent_kda`, a chunk of tokens at a time; any T. chunk_size: a power of two. Differentiable once."""
    return chunk_delta_rule(q, k, v, g, beta, initial_state, chunk_size)
