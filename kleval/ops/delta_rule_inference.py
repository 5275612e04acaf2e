"""The gated delta rule over chunks for prefill on a CPU: `delta_rule` without gradients, in fewer passes over memory.

Same chunkwise form, same state. Two things differ from `delta_rule._ChunkDeltaRule`:

- Decays between the tokens i >= j of a chunk are P_i / P_j with P counted from the middle of the chunk (to the left of it P is the
  reciprocal of a product of decays), so that one matrix product per chunk does what is a doubling there. P is a running product,
  never a difference of sums: a relative error of a few roundings. That is exact only while no product falls below `_FLOOR`; chunks
  in which a channel decays faster (unbounded gates can) take the pairwise form, which divides nothing, and only they do.
- With few heads of few channels the loop over chunks is one product per chunk, S' = M S + B with M [K, K] made for all chunks at
  once; otherwise it is u = U - W S, S' = Diag(P_C) S + (X k)^T u as in the paper (arXiv 2510.26692, Eq. 6 to 9).

A long sequence goes through in pieces with the state carried, so that working memory does not grow with it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kleval.ops.delta_chunks import pair_products

# The smallest normal float32 is e^-87: above this floor a product of decays and its reciprocal are both finite and exact.
_FLOOR = math.exp(-80)
_PIECE_VALUES = 1 << 19  # tokens * batch * heads * channels of one piece: about 30 MiB of working memory in float32
_LOOP_VALUES = 1 << 14  # up to so many values of state a step of the loop costs its call, not its work
_SOLVE_TOKENS = 16


def chunk_inference(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """q, k [B, T, H, K], v [B, T, H, V], g [B, T, H, K or 1], beta [B, T, H], state [B, H, K, V], of one dtype; T >= 2.

    chunk: a power of two >= 2. Returns o [B, T, H, V] and the final state [B, H, K, V]; state is left as it is.
    """
    batch, tokens, heads, width = q.shape
    state = state.flatten(0, 1)
    piece = max(1, _PIECE_VALUES // max(1, batch * heads * width * chunk)) * chunk
    o = torch.empty_like(v, memory_format=torch.contiguous_format)
    for begin in range(0, tokens, piece):
        here = slice(begin, min(begin + piece, tokens))
        parts = [_to_chunks(x[:, here], chunk) for x in (q, k, v, g, beta.unsqueeze(-1))]
        out, state = _chunks(parts[0], parts[1], parts[2], parts[3], parts[4], state)  # out [n * B * H, C, V]
        out = out.unflatten(0, (-1, batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)
        o[:, here] = out[:, : here.stop - begin]
    return o, state.unflatten(0, (batch, heads))


def _to_chunks(x: Tensor, chunk: int) -> Tensor:
    """[B, T, H, D] -> a view [n, B, H, C, D]; padding tokens are zero, which decays nothing and writes nothing."""
    if x.shape[1] % chunk:
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, chunk - x.shape[1] % chunk))
    return x.unflatten(1, (-1, chunk)).permute(1, 0, 3, 2, 4)


def _chunks(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """q, k [n, B, H, C, K], v [.., C, V], g [.., C, K or 1], beta [.., C, 1], any strides; state [N, K, V], N = B H."""
    *outer, chunk, width = q.shape
    rows, values = len(state), v.shape[-1]
    k_out, total, qk_in, scores = _within(q, k, g)
    k_in, q_in = qk_in.split(chunk, 1)
    kk, qk = scores.split(chunk, 1)
    beta = beta.reshape(-1, chunk, 1)
    inverse = lower_inverse(kk * beta)
    right = q.new_empty(len(kk), chunk, values + width)  # b v and b (P k): u = T b v - (T b P k) S for every S
    torch.mul(v, beta.view(*outer, chunk, 1), out=right.view(*outer, chunk, -1)[..., :values])
    torch.mul(k_in, beta, out=right[..., values:])
    u, w = torch.bmm(inverse, right).split([values, width], -1)
    k_out = k_out.transpose(1, 2)
    if width * rows * values <= _LOOP_VALUES and width <= 2 * chunk:
        transfer = torch.bmm(k_out, w).neg_()  # [m, K, K]
        transfer.diagonal(dim1=1, dim2=2).add_(total.squeeze(-1))
        states = _scan(transfer.view(-1, rows, width, width), torch.bmm(k_out, u).view(-1, *state.shape), state)
        starts = states[:-1].flatten(0, 1)
        u = torch.baddbmm(u, w, starts, alpha=-1)
    else:
        u = u.contiguous()
        states = _loop(u.view(-1, rows, chunk, values), w.unflatten(0, (-1, rows)), k_out, total, state)
        starts = states[:-1].flatten(0, 1)
    o = torch.bmm(q_in, starts).baddbmm_(qk, u)
    return o.mul_(width**-0.5), states[-1].clone()


def _within(q: Tensor, k: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a chunk needs of itself; q is not scaled. Operands as for `_chunks`, m = n B H.

    Returns X k [m, C, K]; the decay over the chunk [m, K or 1, 1]; P k over P q [m, 2 C, K], P from the start of the chunk; and
    StrictTril(k_i D_ij k_j) over Tril(q_i D_ij k_j) [m, 2 C, C].
    """
    *outer, chunk, width = q.shape
    m, half = math.prod(outer), chunk // 2
    decay = torch.exp(g, out=g.new_empty(g.shape))  # contiguous, whatever the strides of g
    halves = decay.view(m, 2, half, -1).cumprod(2)
    ends = halves[:, :, -1:]  # [m, 2, 1, K or 1]
    left, right = ends.clone().unbind(1)
    fast = (ends >= _FLOOR).flatten(1).all(-1)
    halves[:, 0] /= left
    from_middle = halves.view(*outer, chunk, -1)
    into, out_of = q.new_empty(*outer, 2 * chunk, width), q.new_empty(q.shape)
    torch.mul(k, from_middle, out=into[..., :chunk, :])
    torch.mul(q, from_middle, out=into[..., chunk:, :])
    torch.div(k, from_middle, out=out_of)
    into, out_of = into.view(m, 2 * chunk, width), out_of.view(m, chunk, width)
    scores = torch.bmm(into, out_of.transpose(1, 2))
    out_of.mul_(right)
    into.mul_(left)
    total = (left * right).transpose(1, 2)
    if not bool(fast.all()):
        slow = (~fast).nonzero().squeeze(-1)
        q, k, g = (x.reshape(m, chunk, -1)[slow] for x in (q, k, g))
        prefix, suffix, qk, kk, _ = pair_products(q, k, g, torch.zeros_like(k[..., :1]))
        scores[slow] = torch.cat([kk, qk], 1)
        into[slow] = torch.cat([k * prefix, q * prefix], 1)
        out_of[slow] = k * suffix
    both = scores.view(m, 2, chunk, chunk)
    both[:, 0].tril_(-1)
    both[:, 1].tril_()
    return out_of, total, into, scores


def _scan(transfer: Tensor, added: Tensor, state: Tensor) -> Tensor:
    """S_{i + 1} = M_i S_i + B_i: M [n, N, K, K], B [n, N, K, V] -> [n + 1, N, K, V]."""
    states = state.new_empty(len(added) + 1, *state.shape)
    states[0] = state
    every = states.unbind(0)
    for i, (m, b) in enumerate(zip(transfer.unbind(0), added.unbind(0), strict=True)):
        torch.baddbmm(b, m, every[i], out=every[i + 1])
    return states


def _loop(u: Tensor, w: Tensor, k_out: Tensor, total: Tensor, state: Tensor) -> Tensor:
    """u [n, N, C, V] -= W S in place; S' = Diag(total) S + (X k)^T u -> [n + 1, N, K, V]. k_out [n N, K, C], total [n N, K or 1, 1]."""
    n, rows = u.shape[:2]
    states = state.new_empty(n + 1, *state.shape)
    states[0] = state
    every = states.unbind(0)
    write, keep = k_out.unflatten(0, (n, rows)).unbind(0), total.unflatten(0, (n, rows)).unbind(0)
    for i, (u_i, w_i) in enumerate(zip(u.unbind(0), w.unbind(0), strict=True)):
        u_i.baddbmm_(w_i, every[i], alpha=-1)
        torch.mul(every[i], keep[i], out=every[i + 1])
        every[i + 1].baddbmm_(write[i], u_i)
    return states


def lower_inverse(x: Tensor) -> Tensor:
    """(I + StrictTril x)^-1 of x [m, C, C], C a power of two; what lies on and above the diagonal of x is not read.

    Forward substitution in blocks of 16 tokens, then pairs of blocks; neither forms powers of x, which would cancel.
    """
    m, chunk, _ = x.shape
    size = min(_SOLVE_TOKENS, chunk)
    eye = torch.eye(size, dtype=x.dtype, device=x.device).expand(m * (chunk // size), size, size)
    blocks = x
    if size < chunk:
        blocks = x.view(m, chunk // size, size, chunk // size, size).diagonal(dim1=1, dim2=3)
        blocks = blocks.permute(0, 3, 1, 2).reshape(-1, size, size)
    inverse = torch.linalg.solve_triangular(blocks, eye, upper=False, unitriangular=True)
    while size < chunk:
        pairs = chunk // (2 * size)
        cross = x.view(m, pairs, 2 * size, pairs, 2 * size).diagonal(dim1=1, dim2=3)[:, size:, :size]
        cross = cross.permute(0, 3, 1, 2).reshape(-1, size, size)
        left, right = inverse[::2], inverse[1::2]
        grown = x.new_zeros(len(cross), 2 * size, 2 * size)
        grown[:, :size, :size], grown[:, size:, size:] = left, right
        grown[:, size:, :size] = torch.bmm(right, torch.bmm(cross, left)).neg_()
        inverse = grown
        size *= 2
    return inverse
