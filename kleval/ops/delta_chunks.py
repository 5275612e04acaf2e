"""Products of decays inside a chunk of the delta rule, by doubling: the pairwise form, which divides nothing.

Blocks of s tokens are paired and s doubles from 1 to C / 2: see `delta_rule`, whose training form and whose inference form (for
chunks with fast decays) stand on it, and `dplr`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pair_products(q: Tensor, k: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Everything inside a chunk, by doubling. q, k [m, C, K], g [m, C, K or 1], beta [m, C, 1].

    Returns prefix P, suffix X (as g), Tril(q_i D_ij k_j), StrictTril(k_i D_ij k_j) and the inverse T, [m, C, C] each.
    """
    m, chunk, _ = q.shape
    prefix, suffix = g.exp(), torch.ones_like(g)
    qk = (q * k).sum(-1).view(m * chunk, 1, 1)
    kk, inverse = torch.zeros_like(qk), torch.ones_like(qk)
    size = 1
    while size < chunk:
        right, left = rows_and_columns(q, k, prefix, suffix, size)
        product = torch.bmm(right, left.transpose(-1, -2))  # [pairs, 2 s, s]
        qk_cross, kk_cross = product[:, :size], product[:, size:]
        below = kk_cross * halves(beta, size)[1]
        inverse_cross = -below if size == 1 else -(inverse[1::2] @ (below @ inverse[::2]))
        qk, kk, inverse = grow(qk, qk_cross), grow(kk, kk_cross), grow(inverse, inverse_cross)
        double_decays(prefix, suffix, size)
        size *= 2
    return prefix, suffix, qk, kk, inverse


def halves(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Views of the left and right blocks of s tokens, [m * C / 2 s, s, D] each."""
    blocks = x.view(-1, 2, size, x.shape[-1])
    return blocks[:, 0], blocks[:, 1]


def rows_and_columns(q: Tensor, k: Tensor, prefix: Tensor, suffix: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Queries over keys of the right blocks times P, [pairs, 2 s, K]; keys of the left blocks times X, [pairs, s, K]."""
    k_left, k_right = halves(k, size)
    decay = halves(prefix, size)[1]
    right = q.new_empty(len(k_left), 2 * size, k.shape[-1])
    torch.mul(halves(q, size)[1], decay, out=right[:, :size])
    torch.mul(k_right, decay, out=right[:, size:])
    return right, k_left * halves(suffix, size)[0]


def double_decays(prefix: Tensor, suffix: Tensor, size: int) -> None:
    """Extend P and X in place from blocks of s tokens to blocks of 2 s."""
    prefix_left, prefix_right = halves(prefix, size)
    halves(suffix, size)[0].mul_(prefix_right[:, -1:])
    prefix_right.mul_(prefix_left[:, -1:])


def grow(blocks: Tensor, cross: Tensor) -> Tensor:
    """Block diagonals [2 p, s, s] and what lies below them [p, s, s] -> lower triangular [p, 2 s, 2 s]."""
    size = cross.shape[-1]
    grown = blocks.new_zeros(len(cross), 2 * size, 2 * size)
    grown[:, :size, :size] = blocks[::2]
    grown[:, size:, size:] = blocks[1::2]
    grown[:, size:, :size] = cross
    return grown
