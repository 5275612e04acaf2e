"""Multi-head latent attention: causal training form, blockwise prefill against a latent cache, absorbed decode.

DeepSeek-V2 (arXiv 2405.04434), in the shape of Kimi Linear: no low-rank query, one rope part of the key shared by all heads.
The cache holds one row [latent | rope part] per token. Prefill expands one block of rows to keys and values at a time and merges
blocks by online softmax; decode never expands: the query is carried into latent space and attends to the rows as they are.
NoPE keeps the rope part, unrotated, and the scale (nope + rope)^-0.5.

RoPE convention: components (2 i, 2 i + 1) of the rope part are one rotating pair with frequency theta^(-2 i / R), as the weights of
DeepSeek-V3 are stored. DeepSeek's own code also moves the result to half-split order; doing so to both sides does not change a
score, and here the order is kept.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_TOKENS = 1024
QUERY_TOKENS = 128
TRAINING_QUERY_TOKENS = 64
ABSORBED_TOKENS = 4  # up to so many new tokens the absorbed form is used


def apply_rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotate x [B, T, H, R] by positions [B, T] (any integers). Angles in float32, float64 for float64."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    angle = (positions[..., None].to(wide) * frequency)[:, :, None]  # [B, T, 1, R / 2]
    cos, sin = angle.cos(), angle.sin()
    even, odd = x.to(wide).unflatten(-1, (half, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(x.dtype)


def expand(latent: Tensor, k_rope: Tensor, kv_b: Tensor, nope: int) -> tuple[Tensor, Tensor]:
    """Keys and values of all heads. latent [B, S, r], k_rope [B, S, R], kv_b [H, nope + v, r] -> [B, H, S, nope + R], [B, H, S, v]."""
    heads = len(kv_b)
    both = F.linear(latent, kv_b.flatten(0, 1)).unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, H, S, nope + v]
    k_nope, v = both[..., :nope], both[..., nope:]
    return torch.cat([k_nope, k_rope[:, None].expand(-1, heads, -1, -1).to(k_nope.dtype)], -1), v


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, block: int = TRAINING_QUERY_TOKENS) -> Tensor:
    """Causal attention of a sequence with itself, differentiable once. q, k [B, H, T, D], v [B, H, T, Dv] -> [B, H, T, Dv].

    A block of queries at a time against the keys up to its own end: half the work of a masked [T, T]. Where keys and values
    differ in width torch's fused attention falls back to [T, T] on a CPU; this is faster there, and kept for the gradient are
    the weights of the lower triangle alone. Computes in float32 (float64 for float64).
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        o: Tensor = _CausalAttention.apply(*(x.to(wide).flatten(0, 1) for x in (q * scale, k, v)), block)
    return o.view(v.shape).to(v.dtype)


class _CausalAttention(torch.autograd.Function):
    """q (scaled), k [N, T, D], v [N, T, Dv] -> [N, T, Dv]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        out = torch.empty_like(v)
        kept = []
        for begin in range(0, q.shape[1], block):
            part = q[:, begin : begin + block]
            end = begin + part.shape[1]
            future = part.new_full((part.shape[1], end), -torch.inf).triu_(begin + 1)
            weights = torch.baddbmm(future, part, k[:, :end].transpose(1, 2)).softmax(-1)
            out[:, begin:end] = torch.bmm(weights, v[:, :end])
            kept.append(weights)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(q, k, v, out, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, *kept = ctx.saved_tensors
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        along = (d_out * out).sum(-1, keepdim=True)
        begin = 0
        with torch.autocast(q.device.type, enabled=False):
            for weights in kept:
                end = begin + weights.shape[1]
                d_part = d_out[:, begin:end]
                d_v[:, :end].baddbmm_(weights.transpose(1, 2), d_part)
                d_scores = torch.bmm(d_part, v[:, :end].transpose(1, 2)).sub_(along[:, begin:end]).mul_(weights)
                d_q[:, begin:end] = torch.bmm(d_scores, k[:, :end])
                d_k[:, :end].baddbmm_(d_scores.transpose(1, 2), q[:, begin:end])
                begin = end
        return d_q, d_k, d_v, None


def prefill_attention(
    q: Tensor, rows: Tensor, starts: Tensor, kv_b: Tensor, nope: int, scale: float, block: int = BLOCK_TOKENS
) -> Tensor:
    """New tokens against all cached rows, their own included, without gradient.

    q [B, T, H, nope + R]: sequence b's tokens are at positions starts[b] ... starts[b] + T - 1. rows [B, S, r + R],
    S >= max(starts) + T; token t of sequence b sees rows 0 ... starts[b] + t. kv_b [H, nope + v, r]. Returns [B, T, H, v].

    At most `block` rows are expanded at a time and QUERY_TOKENS queries meet them at a time: scores stay in the processor's
    cache, and no more of them exist than [H, QUERY_TOKENS, block]. Sequences go one by one, each over its own length.
    """
    q = (q * scale).transpose(1, 2)  # [B, H, T, nope + R]
    outputs = [
        _attend(q[b], rows[b, : start + q.shape[2]], start, kv_b, nope, block)
        for b, start in enumerate(starts.tolist())
    ]
    return torch.stack(outputs).transpose(1, 2).to(q.dtype)


def _attend(q: Tensor, rows: Tensor, start: int, kv_b: Tensor, nope: int, block: int) -> Tensor:
    """One sequence by online softmax: q [H, T, D] scaled, rows [start + T, r + R] -> [H, T, v], float32 or wider."""
    heads, tokens, _ = q.shape
    rank = kv_b.shape[-1]
    wide = torch.promote_types(q.dtype, torch.float32)
    top = q.new_full((heads, tokens, 1), -torch.inf, dtype=wide)
    total = q.new_zeros(heads, tokens, 1, dtype=wide)
    out = q.new_zeros(heads, tokens, kv_b.shape[1] - nope, dtype=wide)
    future = q.new_full((QUERY_TOKENS, QUERY_TOKENS), -torch.inf, dtype=wide).triu_(1)
    scratch = q.new_empty(heads * QUERY_TOKENS * min(block, len(rows)))  # one allocation for all scores
    for begin in range(0, len(rows), block):
        part = rows[begin : begin + block].to(q.dtype)
        k, v = (x.squeeze(0) for x in expand(part[None, :, :rank], part[None, :, rank:], kv_b, nope))
        k = k.transpose(-1, -2).contiguous()
        for i in range(max(0, begin - start) // QUERY_TOKENS * QUERY_TOKENS, tokens, QUERY_TOKENS):
            here = slice(i, min(i + QUERY_TOKENS, tokens))
            count = here.stop - i
            end = min(start + here.stop, begin + len(part)) - begin  # rows of this block that some query here sees
            scores = scratch[: heads * count * end].view(heads, count, end)
            scores = torch.bmm(q[:, here], k[..., :end], out=scores).to(wide)
            # Columns past each query's own position; in blocks that lie before all queries there are none.
            own = start + i - begin
            if own < end - 1:
                first = max(own, 0)
                scores[..., first:] += future[:count, first - own : end - own]
            new_top = torch.maximum(top[:, here], scores.amax(-1, keepdim=True))
            scores.sub_(new_top).exp_()
            shrink = (top[:, here] - new_top).exp_()
            total[:, here] = total[:, here] * shrink + scores.sum(-1, keepdim=True)
            out[:, here] = out[:, here] * shrink + torch.bmm(scores.to(v.dtype), v[:, :end])
            top[:, here] = new_top
    return out / total


def absorbed_attention(q: Tensor, rows: Tensor, starts: Tensor, kv_b: Tensor, nope: int, scale: float) -> Tensor:
    """The same as `prefill_attention` for few tokens, in latent space: cost per cached row H (2 r + R) and no expansion.

    q [B, T, H, nope + R], rows [B, S, r + R], starts [B], kv_b [H, nope + v, r] -> [B, T, H, v].
    """
    batch, tokens, heads, _ = q.shape
    rank = kv_b.shape[-1]
    last = int(starts.max()) + tokens
    rows = rows[:, :last]
    in_latent = torch.einsum("bthd,hdr->bthr", q[..., :nope], kv_b[:, :nope].to(q.dtype))
    full = torch.cat([in_latent, q[..., nope:]], -1).flatten(1, 2)  # [B, T * H, r + R]
    # Rows on the left: with so few queries a matrix product walks over them twice as fast as with rows transposed.
    scores = (rows.to(q.dtype) @ full.transpose(1, 2)).transpose(1, 2).unflatten(1, (tokens, heads))
    scores = scores.contiguous().to(torch.promote_types(q.dtype, torch.float32)) * scale
    seen = starts[:, None] + torch.arange(tokens, device=q.device)
    hidden = torch.arange(last, device=q.device) > seen[..., None]  # [B, T, S]
    weights = scores.masked_fill(hidden[:, :, None], -torch.inf).softmax(-1).to(q.dtype)
    of_latent = (weights.flatten(1, 2) @ rows[..., :rank].to(q.dtype)).view(batch, tokens, heads, rank)
    return torch.einsum("bthr,hdr->bthd", of_latent, kv_b[:, nope:].to(q.dtype))
