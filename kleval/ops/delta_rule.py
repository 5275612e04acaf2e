"""The gated delta rule over chunks of tokens, for one decay per channel (KDA) or per head (GDN).

Recurrence, per head with state S [K, V], in the order decay, then delta (arXiv 2510.26692, Eq. 1):
    S_t = (I - b_t k_t k_t^T) Diag(exp g_t) S_{t-1} + b_t k_t v_t^T ;   o_t = S_t^T q_t

With P_i the product of decays from the start of the chunk to i, X_j from j + 1 to its end, D_ij from j + 1 to i, S the state at
the start of the chunk and T = (I + StrictTril(b_i k_i D_ij k_j))^-1 (the paper's UT transform):
    u = T b (v - (P k) S) ;   o = (P q) S + Tril(q_i D_ij k_j) u ;   S' = Diag(P_C) S + (X k)^T u

How D is applied decides whether the operator survives unbounded gates: exp(-sum g) overflows. Here every D_ij is split at a
boundary between j and i, so that both factors are products of decays and at most 1: blocks of s tokens are paired, rows of the
right block carry P within the block, columns of the left block carry X, one matrix product per pair, and s doubles from 1 to
C / 2. Nothing is ever divided, subtracted from a running sum, or expanded to [C, C, K]; the triangular inverse is built by the
same doubling. One exp per gate, and only the state is a loop, over chunks. The official kernels (fla-core `fla/ops/kda`) take
differences of running sums against a reference point per 16 tokens instead: the same function, other rounding.

Gradients are written by hand, by the same doubling, in terms of log-decays: no term cancels another, so a gate of -1000 has
gradient 0 and not the rounding error of its neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kleval.ops.delta_chunks import double_decays, halves, pair_products, rows_and_columns
from kleval.ops.delta_rule_inference import chunk_inference

DEFAULT_CHUNK_TOKENS = 32


def recurrent_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence, token by token: the reference for everything else.

    q, k [B, T, H, K] (q not yet scaled), v [B, T, H, V], g [B, T, H, K] or [B, T, H, 1], beta [B, T, H],
    initial_state [B, H, K, V]. Returns o [B, T, H, V] in v's dtype and the state [B, H, K, V] in float32 (float64 for float64).
    """
    dtype, out_dtype = compute_dtype(q), v.dtype
    q, k, v, g, beta = (x.to(dtype) for x in (q, k, v, g, beta))
    state = _state(q, v, initial_state)
    q = q * q.shape[-1] ** -0.5
    outputs = []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp().unsqueeze(-1)
        error = (v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state)) * beta[:, t].unsqueeze(-1)
        state = state + k[:, t].unsqueeze(-1) * error.unsqueeze(-2)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    o = torch.stack(outputs, 1) if outputs else v.new_zeros(v.shape)
    return o.to(out_dtype), state


def chunk_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    chunk_size: int = DEFAULT_CHUNK_TOKENS,
) -> tuple[Tensor, Tensor]:
    """The same function as `recurrent_delta_rule`, chunkwise and differentiable (once). chunk_size: a power of two."""
    if chunk_size < 1 or chunk_size & (chunk_size - 1):
        raise ValueError(f"chunk_size must be a power of two, got {chunk_size}")
    batch, tokens, heads, _ = q.shape
    if tokens <= 1:
        return recurrent_delta_rule(q, k, v, g, beta, initial_state)
    chunk = min(chunk_size, 1 << (tokens - 1).bit_length())
    dtype, out_dtype = compute_dtype(q), v.dtype
    with torch.autocast(q.device.type, enabled=False):
        state = _state(q, v, initial_state)
        if chunk > 1 and not _needs_gradient(q, k, v, g, beta, state):
            q, k, v, g, beta = (x.to(dtype) for x in (q, k, v, g, beta))
            o, final = chunk_inference(q, k, v, g, beta, state, chunk)
            return o.to(out_dtype), final
        state = state.flatten(0, 1)
        parts = (_to_chunks(x.to(dtype), chunk) for x in (q, k, v, g, beta.unsqueeze(-1)))
        o, final = _ChunkDeltaRule.apply(*parts, state)  # o [n, B * H, C, V]
        o = o.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :tokens]
    return o.to(out_dtype), final.unflatten(0, (batch, heads))


def compute_dtype(x: Tensor) -> torch.dtype:
    """States and gates are float32 whatever the activations are, float64 in tests."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _state(q: Tensor, v: Tensor, initial: Tensor | None) -> Tensor:
    batch, _, heads, width = q.shape
    if initial is None:
        return q.new_zeros(batch, heads, width, v.shape[-1], dtype=compute_dtype(q))
    return initial.to(compute_dtype(q))


def _to_chunks(x: Tensor, chunk: int) -> Tensor:
    """[B, T, H, D] -> [n, B * H, C, D]; padding tokens are zero, which decays nothing and writes nothing."""
    tokens = x.shape[1]
    if tokens % chunk:
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, chunk - tokens % chunk))
    return x.unflatten(1, (-1, chunk)).permute(1, 0, 3, 2, 4).flatten(1, 2).contiguous()


class _ChunkDeltaRule(torch.autograd.Function):
    """q, k [n, N, C, K], v [n, N, C, V], g [n, N, C, K or 1], beta [n, N, C, 1], state [N, K, V] -> o [n, N, C, V], state."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
        n, _, _, width = q.shape
        q = q * width**-0.5
        prefix, suffix, qk, kk, inverse = (
            x.unflatten(0, q.shape[:2]) for x in pair_products(*(x.flatten(0, 1) for x in (q, k, g, beta)))
        )
        k_in, k_out, q_in = prefix * k, suffix * k, prefix * q
        total = prefix[:, :, -1, :, None]  # [n, N, K or 1, 1]
        mix = inverse * beta.transpose(-1, -2)  # [n, N, C, C]
        states = state.new_empty(n + 1, *state.shape)
        states[0] = state
        error, u = torch.empty_like(v), torch.empty_like(v)
        for i in range(n):
            torch.baddbmm(v[i], k_in[i], states[i], alpha=-1, out=error[i])
            torch.bmm(mix[i], error[i], out=u[i])
            torch.mul(states[i], total[i], out=states[i + 1])
            states[i + 1].baddbmm_(k_out[i].transpose(-1, -2), u[i])
        o = torch.bmm(q_in.flatten(0, 1), states[:-1].flatten(0, 1)).baddbmm_(qk.flatten(0, 1), u.flatten(0, 1))
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(q, k, g, beta, prefix, suffix, qk, kk, inverse, states, error, u)
        return o.view_as(v), states[n].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_final: Tensor) -> Any:
        with torch.autocast(d_o.device.type, enabled=False):
            return _backward(d_o.contiguous(), d_final, *ctx.saved_tensors)


def _backward(
    d_o: Tensor,
    d_final: Tensor,
    q: Tensor,
    k: Tensor,
    g: Tensor,
    beta: Tensor,
    prefix: Tensor,
    suffix: Tensor,
    qk: Tensor,
    kk: Tensor,
    inverse: Tensor,
    states: Tensor,
    error: Tensor,
    u: Tensor,
) -> tuple[Tensor, ...]:
    n = len(q)
    k_in, k_out, q_in = prefix * k, suffix * k, prefix * q
    total = prefix[:, :, -1, :, None]
    d_u = qk.transpose(-1, -2) @ d_o
    d_read = q_in.transpose(-1, -2) @ d_o  # what the outputs of a chunk ask of its first state, [n, N, K, V]
    d_states = torch.empty_like(states)
    d_states[n] = d_final
    y, d_v = torch.empty_like(u), torch.empty_like(u)
    for i in reversed(range(n)):
        d_u[i].baddbmm_(k_out[i], d_states[i + 1])
        torch.bmm(inverse[i].transpose(-1, -2), d_u[i], out=y[i])
        torch.mul(y[i], beta[i], out=d_v[i])
        torch.addcmul(d_read[i], d_states[i + 1], total[i], out=d_states[i])
        d_states[i].baddbmm_(k_in[i].transpose(-1, -2), d_v[i], alpha=-1)
    first, after = states[:-1], d_states[1:]
    d_qk = d_o @ u.transpose(-1, -2)
    d_kk = (y @ u.transpose(-1, -2)).neg_()  # of beta_i kk_ij; what lies above the diagonal is never read
    d_beta = (d_kk * kk).sum(-1, keepdim=True) + (y * error).sum(-1, keepdim=True)
    d_q_in = d_o @ first.transpose(-1, -2)
    d_k_in = (d_v @ first.transpose(-1, -2)).neg_()
    d_k_out = u @ after.transpose(-1, -2)
    width = g.shape[-1]
    log_prefix = _narrow(q_in * d_q_in + k_in * d_k_in, width)
    log_prefix[:, :, -1] += _narrow((first * after).sum(-1), width) * total.squeeze(-1)
    log_suffix = _narrow(k_out * d_k_out, width)
    d_q, d_k = prefix * d_q_in, (prefix * d_k_in).addcmul_(suffix, d_k_out)
    flat = (x.flatten(0, 1) for x in (q, k, g, d_qk, d_kk * beta, d_q, d_k, log_prefix, log_suffix))
    d_g = _pairs_backward(*flat).view_as(g)
    return d_q * q.shape[-1] ** -0.5, d_k, d_v, d_g, d_beta, d_states[0]


def _narrow(x: Tensor, width: int) -> Tensor:
    """Sum over channels where they share one decay."""
    return x if x.shape[-1] == width else x.sum(-1, keepdim=True)


def _pairs_backward(
    q: Tensor,
    k: Tensor,
    g: Tensor,
    d_qk: Tensor,
    d_kk: Tensor,
    d_q: Tensor,
    d_k: Tensor,
    log_prefix: Tensor,
    log_suffix: Tensor,
) -> Tensor:
    """Adds the gradients of qk and kk to d_q and d_k in place; returns that of g.

    log_prefix, log_suffix: gradients of log P and log X of the whole chunk, which are walked down to single tokens here.
    """
    chunk, width = q.shape[1], g.shape[-1]
    diagonal = d_qk.diagonal(dim1=1, dim2=2).unsqueeze(-1)
    d_q.addcmul_(diagonal, k)
    d_k.addcmul_(diagonal, q)
    prefix, suffix = g.exp(), torch.ones_like(g)
    levels = []
    size = 1
    while size < chunk:
        right, left = rows_and_columns(q, k, prefix, suffix, size)
        d_product = torch.cat([_cross(d_qk, size), _cross(d_kk, size)], 1)  # [pairs, 2 s, s]
        if size == 1:  # outer products: a batch of matrix products this small is several times slower
            d_right, d_left = d_product * left, (d_product * right).sum(1, keepdim=True)
        else:
            d_right, d_left = torch.bmm(d_product, left), torch.bmm(d_product.transpose(-1, -2), right)
        decay_left, decay_right = halves(suffix, size)[0], halves(prefix, size)[1]
        halves(d_q, size)[1].addcmul_(decay_right, d_right[:, :size])
        d_k_left, d_k_right = halves(d_k, size)
        d_k_right.addcmul_(decay_right, d_right[:, size:])
        d_k_left.addcmul_(decay_left, d_left)
        d_right *= right
        d_left *= left
        levels.append((_narrow(d_right[:, :size] + d_right[:, size:], width), _narrow(d_left, width)))
        double_decays(prefix, suffix, size)
        size *= 2
    for of_right, of_left in reversed(levels):
        size //= 2
        prefix_left, prefix_right = halves(log_prefix, size)
        suffix_left, _ = halves(log_suffix, size)
        prefix_left[:, -1] += prefix_right.sum(1)
        prefix_right[:, -1] += suffix_left.sum(1)
        prefix_right += of_right
        suffix_left += of_left
    return log_prefix


def _cross(x: Tensor, size: int) -> Tensor:
    """The blocks that `grow` wrote below the diagonal at this size: [m, C, C] -> [m * C / 2 s, s, s]."""
    m, chunk, _ = x.shape
    pairs = chunk // (2 * size)
    blocks = x.view(m, pairs, 2 * size, pairs, 2 * size).diagonal(dim1=1, dim2=3)[:, size:, :size]  # [m, s, s, pairs]
    return blocks.permute(0, 3, 1, 2).reshape(m * pairs, size, size)
