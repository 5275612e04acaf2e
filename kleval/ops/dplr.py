"""General diagonal-plus-low-rank (DPLR) delta rule, to compare KDA with: KDA is a special case of it.

Recurrence, per head with state S [K, V] (arXiv 2510.26692, section 6.2):
    S_t = (Diag(exp g_t) - a_t b_t^T) S_{t-1} + k_t v_t^T ;   o_t = S_t^T q_t
KDA is a_t = beta_t k_t, b_t = exp(g_t) * k_t, and beta_t v_t for v_t: a and b are then no operands of their own.

Chunkwise, with P, X and D of `delta_rule`, E_i the product of decays before i, F_ij that from j + 1 to i - 1, and
T = (I + StrictTril(b_i F_ij a_j))^-1:
    y = T ((E b) S + StrictTril(b_i F_ij k_j) v)
    o = (P q) S + Tril(q_i D_ij k_j) v - Tril(q_i D_ij a_j) y ;   S' = Diag(P_C) S + (X k)^T v - (X a)^T y
Four [C, K] x [K, C] products a chunk where KDA has two, and three products more with v: the difference that the paper counts. All
else is as in `delta_rule_inference`, so that their times can be compared: the same chunks and pieces, decays counted from the middle
of a chunk with the pairwise doubling of `delta_rule` where a channel decays too fast for that, the same inverse, the same loop over
chunks (not its other form for small states). Forward only.

On a CUDA device half-precision operands go through fla-core's kernel (`fla/ops/generalized_delta_rule/dplr/chunk.py`, 0.6.0), which
has a_t and b_t the other way around and their product added; its chunk is 16 tokens for unbounded gates, where its KDA has 64.

Multiply-adds per token and head, counted as the paper counts KDA (Eq. 13): (8 K V + 7 C K + C^2) / 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kleval.ops.available import usable
from kleval.ops.delta_chunks import double_decays, grow, halves
from kleval.ops.delta_rule import DEFAULT_CHUNK_TOKENS, _state, compute_dtype
from kleval.ops.delta_rule_inference import _FLOOR, _PIECE_VALUES, _to_chunks, lower_inverse

FLA_CHUNK_TOKENS = 16


def recurrent_dplr(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Token by token, the reference.

    q, k, a, b [B, T, H, K] (K^-0.5 is applied to q here), v [B, T, H, V], g [B, T, H, K] log-decay <= 0, initial_state
    [B, H, K, V]. Returns o [B, T, H, V] in v's dtype and the state [B, H, K, V] in float32 (float64 for float64 inputs).
    """
    dtype, out_dtype = compute_dtype(q), v.dtype
    q, k, v, a, b, g = (x.to(dtype) for x in (q, k, v, a, b, g))
    state = _state(q, v, initial_state)
    q = q * q.shape[-1] ** -0.5
    outputs = []
    for t in range(q.shape[1]):
        read = torch.einsum("bhk,bhkv->bhv", b[:, t], state)
        state = state * g[:, t].exp().unsqueeze(-1) + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        state = state - a[:, t].unsqueeze(-1) * read.unsqueeze(-2)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    o = torch.stack(outputs, 1) if outputs else v.new_zeros(v.shape)
    return o.to(out_dtype), state


@torch.no_grad()
def chunk_dplr(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    g: Tensor,
    initial_state: Tensor | None = None,
    chunk_size: int = DEFAULT_CHUNK_TOKENS,
) -> tuple[Tensor, Tensor]:
    """`recurrent_dplr`, a chunk of tokens at a time; any T, no gradient. chunk_size: a power of two from 2, of the torch form."""
    if chunk_size < 2 or chunk_size & (chunk_size - 1):
        raise ValueError(f"chunk_size must be a power of two from 2, got {chunk_size}")
    batch, tokens, heads, width = q.shape
    if tokens <= 1:
        return recurrent_dplr(q, k, v, a, b, g, initial_state)
    if by_fla(q.device, v.dtype):
        return _by_fla(q, k, v, a, b, g, initial_state)
    chunk = min(chunk_size, 1 << (tokens - 1).bit_length())
    dtype = compute_dtype(q)
    piece = max(1, _PIECE_VALUES // max(1, batch * heads * width * chunk)) * chunk
    o = torch.empty_like(v, dtype=dtype, memory_format=torch.contiguous_format)
    with torch.autocast(q.device.type, enabled=False):
        state = _state(q, v, initial_state).flatten(0, 1)
        for begin in range(0, tokens, piece):
            here = slice(begin, min(begin + piece, tokens))
            parts = [_to_chunks(x[:, here].to(dtype), chunk) for x in (q, k, v, a, b, g)]
            out, state = _chunks(*parts, state=state)
            out = out.unflatten(0, (-1, batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)
            o[:, here] = out[:, : here.stop - begin]
    return o.to(v.dtype), state.unflatten(0, (batch, heads))


def by_fla(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `chunk_dplr` calls fla-core's kernel."""
    return dtype in (torch.bfloat16, torch.float16) and usable("kda", device)


def _by_fla(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, g: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """In pieces with the state carried, as KDA (`fla_kernels`)."""
    from fla.ops.generalized_delta_rule.dplr import chunk_dplr_delta_rule as kernel

    from kleval.ops.fla_kernels import CALL_TOKENS

    q, k, read, write = (x.to(v.dtype) for x in (q, k, -b, a))
    g, outputs = g.float(), []
    piece = max(FLA_CHUNK_TOKENS, CALL_TOKENS // len(v) // FLA_CHUNK_TOKENS * FLA_CHUNK_TOKENS)
    state = None if state is None else state.float().contiguous()
    for begin in range(0, v.shape[1], piece):
        part = (x[:, begin : begin + piece] for x in (q, k, v, read, write, g))
        o, state = kernel(*part, initial_state=state, output_final_state=True)
        outputs.append(o)
    assert state is not None
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), state


def _chunks(*parts: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """q, k, v, a, b, g as views [n, B, H, C, .]; state [N, K, V], N = B H. Returns o [n N, C, V] and the next state."""
    q, k, v, a, b, g = parts
    *_, chunk, width = q.shape
    rows, values = len(state), v.shape[-1]
    out_of, total, into, scores = _within(q, k, a, b, g)
    b_in, q_in = into.split(chunk, 1)
    of_b, of_q = scores.split(chunk, 1)  # [m, C, 2 C] each: against k, and against -a
    inverse = lower_inverse(-of_b[..., chunk:])
    written = q.new_empty(len(into), 2 * chunk, values)  # v, and below it y
    written.view(*v.shape[:-2], 2 * chunk, values)[..., :chunk, :] = v
    right = q.new_empty(len(into), chunk, values + width)
    torch.bmm(of_b[..., :chunk], written[:, :chunk], out=right[..., :values])
    right[..., values:] = b_in
    y, w = torch.bmm(inverse, right).split([values, width], -1)
    written[:, chunk:] = y
    states = _loop(written.unflatten(0, (-1, rows)), w.unflatten(0, (-1, rows)), out_of.transpose(1, 2), total, state)
    o = torch.bmm(q_in, states[:-1].flatten(0, 1)).baddbmm_(of_q, written)
    return o.mul_(width**-0.5), states[-1].clone()


def _within(q: Tensor, k: Tensor, a: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a chunk needs of itself; q is not scaled. Operands as for `_chunks`, m = n B H.

    Returns X k over -X a [m, 2 C, K]; the decay over the chunk [m, K, 1]; E b over P q [m, 2 C, K]; and [m, 2 C, 2 C]: the strict
    triangles of b against k and -a, over the triangles of q against k and -a.
    """
    *outer, chunk, width = q.shape
    m, half = math.prod(outer), chunk // 2
    decay = torch.exp(g, out=g.new_empty(g.shape))
    halves = decay.view(m, 2, half, -1).cumprod(2)
    ends = halves[:, :, -1:]
    left, right = ends.clone().unbind(1)  # [m, 1, K]
    fast = (ends >= _FLOOR).flatten(1).all(-1)
    halves[:, 0] /= left
    from_middle = halves.view(*outer, chunk, -1)
    into, out_of = (q.new_empty(*outer, 2 * chunk, width) for _ in range(2))
    torch.mul(b[..., 1:, :], from_middle[..., :-1, :], out=into[..., 1:chunk, :])
    torch.div(b[..., :1, :], left.view(*outer, 1, width), out=into[..., :1, :])
    torch.mul(q, from_middle, out=into[..., chunk:, :])
    torch.div(k, from_middle, out=out_of[..., :chunk, :])
    torch.div(a, from_middle, out=out_of[..., chunk:, :]).neg_()
    into, out_of = into.view(m, 2 * chunk, width), out_of.view(m, 2 * chunk, width)
    scores = torch.bmm(into, out_of.transpose(1, 2))
    out_of.mul_(right)
    into.mul_(left)
    total = (left * right).transpose(1, 2)
    if not bool(fast.all()):
        slow = (~fast).nonzero().squeeze(-1)
        q, k, a, b, g = (x.reshape(m, chunk, -1)[slow] for x in (q, k, a, b, g))
        prefix, before, suffix, against = _pairs(q, k, -a, b, g)
        scores[slow] = against
        into[slow] = torch.cat([b * before, q * prefix], 1)
        out_of[slow] = torch.cat([k * suffix, -a * suffix], 1)
    triangles = scores.view(m, 2, chunk, 2, chunk)
    for column in range(2):
        triangles[:, 0, :, column].tril_(-1)
        triangles[:, 1, :, column].tril_()
    return out_of, total, into, scores


def _pairs(q: Tensor, k: Tensor, a: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `delta_chunks.pair_products`: nothing divided, for gates of any size. All operands [m, C, K].

    Returns P, E, X [m, C, K], and b over q against k beside a [m, 2 C, 2 C], each of its four quarters lower triangular.
    """
    m, chunk, width = q.shape
    prefix, before, suffix = g.exp(), torch.ones_like(g), torch.ones_like(g)
    qk, qa = ((q * x).sum(-1).view(m * chunk, 1, 1) for x in (k, a))
    bk, ba = torch.zeros_like(qk), torch.zeros_like(qk)
    size = 1
    while size < chunk:
        decay_left = halves(suffix, size)[0]
        right = q.new_empty(m * chunk // (2 * size), 2 * size, width)
        left = torch.empty_like(right)
        torch.mul(halves(b, size)[1], halves(before, size)[1], out=right[:, :size])
        torch.mul(halves(q, size)[1], halves(prefix, size)[1], out=right[:, size:])
        torch.mul(halves(k, size)[0], decay_left, out=left[:, :size])
        torch.mul(halves(a, size)[0], decay_left, out=left[:, size:])
        product = torch.bmm(right, left.transpose(-1, -2))
        bk, ba = grow(bk, product[:, :size, :size]), grow(ba, product[:, :size, size:])
        qk, qa = grow(qk, product[:, size:, :size]), grow(qa, product[:, size:, size:])
        halves(before, size)[1].mul_(halves(prefix, size)[0][:, -1:])
        double_decays(prefix, suffix, size)
        size *= 2
    against = torch.cat([torch.cat([bk, ba], 2), torch.cat([qk, qa], 2)], 1)
    return prefix, before, suffix, against


def _loop(written: Tensor, w: Tensor, out_of: Tensor, total: Tensor, state: Tensor) -> Tensor:
    """The lower halves of written [n, N, 2 C, V] += W S in place; S' = Diag(total) S + out_of written -> [n + 1, N, K, V].

    w [n, N, C, K], out_of [n N, K, 2 C], total [n N, K, 1].
    """
    n, rows = written.shape[:2]
    chunk = w.shape[2]
    states = state.new_empty(n + 1, *state.shape)
    states[0] = state
    every = states.unbind(0)
    write, keep = out_of.unflatten(0, (n, rows)).unbind(0), total.unflatten(0, (n, rows)).unbind(0)
    read = written.new_empty(
        rows, chunk, written.shape[-1]
    )  # a product into half of `written` would go matrix by matrix
    for i, (here, w_i) in enumerate(zip(written.unbind(0), w.unbind(0), strict=True)):
        here[:, chunk:] += torch.bmm(w_i, every[i], out=read)
        torch.mul(every[i], keep[i], out=every[i + 1])
        every[i + 1].baddbmm_(write[i], here)
    return states
