"""Multi-head latent attention against a latent cache: blockwise prefill, absorbed decode.

DeepSeek-V2 (arXiv 2405.04434), in the shape of Kimi Linear: no low-rank query, one rope part of the key shared by all heads.
The cache holds one row [latent | rope part] per token, and per sequence those rows lie in a few segments. Prefill expands one block
of rows to keys and values at a time and merges blocks by their log-sum-exp; the absorbed form never expands: the query is carried
into latent space and attends to the rows as they are, which are keys and values of one shared head. NoPE keeps the rope part,
unrotated, and the scale (nope + rope)^-0.5. The training form is in `mla_training`.

Multiply-adds per head, with T new tokens, per cached row: expanded T (nope + rope + v) + r (nope + v), absorbed T (2 r + R). The
second is less for few tokens: up to 170 at the published shape. In both forms nothing waits for a device: where a sequence starts
is known on the host.

RoPE convention: components (2 i, 2 i + 1) of the rope part are one rotating pair with frequency theta^(-2 i / R), as the weights of
DeepSeek-V3 are stored. DeepSeek's own code also moves the result to half-split order; doing so to both sides does not change a
score, and here the order is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.ops.attend import Attend, attend, merge

GRANULE = 256  # cached rows that lie together, and are addressed together by device kernels
BLOCK_TOKENS = 2048  # cached rows expanded at a time on a CPU, of all sequences of a group together
CUDA_BLOCK_TOKENS = 8192  # and on CUDA
GROUP_TOKENS = 65536  # most new tokens of the sequences that go together: bounds the float32 results
OWN_TOKENS = 128  # least side of a causal square on a CPU
ABSORBED_TOKENS = 256  # most new tokens the absorbed form is used for
CUDA_ABSORBED_TOKENS = 8  # there the absorbed form of several tokens has no fused kernel
LONG_TOKENS = 8192  # rows that several threads share


def apply_rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotate x [B, T, H, R] by positions [B, T] (any integers). Angles in float32, float64 for float64."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    angle = (positions[..., None].to(wide) * frequency)[:, :, None]  # [B, T, 1, R / 2]
    cos, sin = angle.cos(), angle.sin()
    even, odd = x.to(wide).unflatten(-1, (half, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).to(x.dtype)


def cached_attention(
    q: Tensor, rows: Sequence[Sequence[Tensor]], counts: Sequence[int], kv_b: Tensor, nope: int, scale: float
) -> Tensor:
    """New tokens against all cached rows, their own included, without gradient, in the cheaper of the two forms.

    q [B, T, H, nope + R]. rows: per sequence its segments [n, r + R], the last counts[b] of whose rows belong to the sequence's
    first counts[b] tokens here; what is behind those in q is padding, for which 0 is returned. Token t of a sequence sees all
    rows up to its own. kv_b [H, nope + v, r]. Returns [B, T, H, v] in q's dtype.
    """
    form = absorbed_attention if absorbed_is_cheaper(max(counts, default=0), q, kv_b, nope) else prefill_attention
    return form(q, rows, counts, kv_b, nope, scale)


def absorbed_is_cheaper(tokens: int, q: Tensor, kv_b: Tensor, nope: int) -> bool:
    """Whether so many new tokens meet a long cache with fewer operations in latent space."""
    if q.is_cuda:
        return tokens <= CUDA_ABSORBED_TOKENS
    rank, value = kv_b.shape[-1], kv_b.shape[1] - nope
    more_per_token = 2 * (rank + q.shape[-1] - nope) - 2 * max(q.shape[-1], value)  # widths as the CPU kernel pads them
    return tokens <= ABSORBED_TOKENS and tokens * more_per_token < rank * (nope + value)


def expand(rows: Tensor, kv_b: Tensor, nope: int) -> tuple[Tensor, Tensor]:
    """Keys and values of all heads. rows [B, S, r + R], kv_b [H, nope + v, r] -> [B, H, S, nope + R], [B, H, S, v]."""
    heads, _, rank = kv_b.shape
    both = (
        F.linear(rows[..., :rank], kv_b.flatten(0, 1)).unflatten(-1, (heads, -1)).transpose(1, 2)
    )  # [B, H, S, nope + v]
    rope = rows[:, None, :, rank:].expand(-1, heads, -1, -1)
    return torch.cat([both[..., :nope], rope], -1), both[..., nope:]


def prefill_attention(
    q: Tensor,
    rows: Sequence[Sequence[Tensor]],
    counts: Sequence[int],
    kv_b: Tensor,
    nope: int,
    scale: float,
    block: int | None = None,
    attend_block: Attend = attend,
) -> Tensor:
    """`cached_attention` in expanded form, at most `block` rows at a time.

    Sequences of equal length and as many new tokens go together. Rows before the new tokens are attended in full; the new
    tokens' own in blocks too: a block's square causally, by later tokens in full.
    """
    out = q.new_zeros(*q.shape[:3], kv_b.shape[1] - nope)
    for members, total, tokens in _groups(rows, counts):
        alone = len(members) == len(q)
        queries = (q if alone else q[members])[:, :tokens].transpose(1, 2)  # [G, H, t, nope + R]
        size = block or max(GRANULE, (CUDA_BLOCK_TOKENS if q.is_cuda else BLOCK_TOKENS) // len(members))
        # The CPU kernel computes all of a causal square: four small ones are 5/8 of the work of a large one.
        own = size if q.is_cuda else min(size, max(OWN_TOKENS, tokens // 4))
        edges = [*range(0, total - tokens, size), *range(total - tokens, total, own), total]
        result = _blockwise(queries, [rows[b] for b in members], edges, kv_b, nope, scale, attend_block).transpose(1, 2)
        if alone and tokens == q.shape[1]:
            return result.to(q.dtype)
        out[members, :tokens] = result.to(q.dtype)
    return out


def _groups(rows: Sequence[Sequence[Tensor]], counts: Sequence[int]) -> Iterator[tuple[list[int], int, int]]:
    """Sequences with equal numbers of rows and of new tokens: (members, rows, new tokens)."""
    groups: dict[tuple[int, int], list[int]] = {}
    for b, count in enumerate(counts):
        if count:
            groups.setdefault((sum(map(len, rows[b])), count), []).append(b)
    for (total, count), members in groups.items():
        most = max(1, GROUP_TOKENS // count)
        for first in range(0, len(members), most):
            yield members[first : first + most], total, count


def _blockwise(
    q: Tensor,
    rows: Sequence[Sequence[Tensor]],
    edges: Sequence[int],
    kv_b: Tensor,
    nope: int,
    scale: float,
    attend_block: Attend,
) -> Tensor:
    """q [G, H, T, nope + R] of the last T positions -> [G, H, T, v], in q's dtype or wider. edges: of the blocks; the position
    of the first query is one of them."""
    value, start = kv_b.shape[1] - nope, edges[-1] - q.shape[2]
    out = q.new_zeros(*q.shape[:3], value, dtype=torch.promote_types(q.dtype, torch.float32))
    lse = torch.full_like(out[..., 0], -math.inf)
    for begin, end in pairwise(edges):
        parts = [_slice(segments, begin, end).to(q.dtype) for segments in rows]
        k, v = expand(parts[0][None] if len(parts) == 1 else torch.stack(parts), kv_b, nope)
        if not q.is_cuda and 0 < k.shape[-1] - value <= nope:
            # The CPU kernel wants values as wide as keys: their left neighbours in memory make them so without a copy.
            v = v.as_strided((*v.shape[:3], k.shape[-1]), v.stride(), v.storage_offset() - k.shape[-1] + value)
        own, past = (
            max(begin - start, 0),
            max(end - start, 0),
        )  # the queries of these very rows; none before the new tokens
        if own < past:
            square, square_lse = attend_block(q[:, :, own:past], k, v, scale, True)
            if len(edges) == 2:
                return square[..., -value:]
            merge(out[:, :, own:past], lse[:, :, own:past], square[..., -value:], square_lse)
        if past < q.shape[2]:
            more, more_lse = attend_block(q[:, :, past:], k, v, scale, False)
            merge(out[:, :, past:], lse[:, :, past:], more[..., -value:], more_lse)
    return out


def _slice(segments: Sequence[Tensor], begin: int, end: int) -> Tensor:
    """Rows begin ... end - 1 of a sequence: a view where they lie in one segment."""
    parts = []
    for segment in segments:
        if begin < len(segment) and end > 0:
            parts.append(segment[max(begin, 0) : end])
        begin, end = begin - len(segment), end - len(segment)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def absorbed_attention(
    q: Tensor,
    rows: Sequence[Sequence[Tensor]],
    counts: Sequence[int],
    kv_b: Tensor,
    nope: int,
    scale: float,
    attend_block: Attend = attend,
) -> Tensor:
    """`cached_attention` in latent space: every head's queries meet the same rows, which are read as they lie."""
    batch, tokens = q.shape[:2]
    if batch == tokens == counts[0] == 1:
        return _one_token(q, rows[0], kv_b, nope, scale, attend_block)
    full = to_latent(q, kv_b, nope)  # [H, B, T, r + R]
    if tokens == 1:
        flat = full.permute(1, 2, 0, 3).contiguous().split(1)  # [1, 1, H, r + R] each
        outs = [_over_rows(flat[b], rows[b], scale, attend_block) if n else flat[b] * 0 for b, n in enumerate(counts)]
        return from_latent(torch.cat(outs).permute(2, 0, 1, 3), kv_b, nope)
    latent = full.new_zeros(full.shape)
    for b, count in enumerate(counts):
        if count:
            latent[:, b, :count] = _absorbed(full[:, b, :count], rows[b], scale, attend_block)
    return from_latent(latent, kv_b, nope)


def _one_token(
    q: Tensor, segments: Sequence[Tensor], kv_b: Tensor, nope: int, scale: float, attend_block: Attend
) -> Tensor:
    """One token of one sequence. At small sizes a step costs what its operators cost to call: here are as few as can be."""
    heads, _, rank = kv_b.shape
    q = q.reshape(heads, 1, -1)
    kv_b = kv_b if kv_b.dtype == q.dtype else kv_b.to(q.dtype)
    full = torch.cat([torch.bmm(q[..., :nope], kv_b[:, :nope]), q[..., nope:]], -1)  # [H, 1, r + R]
    latent = _over_rows(full.view(1, 1, heads, -1), segments, scale, attend_block).view(heads, 1, -1)
    return torch.bmm(latent[..., :rank], kv_b[:, nope:].mT).view(1, 1, heads, -1)


def to_latent(q: Tensor, kv_b: Tensor, nope: int) -> Tensor:
    """Queries that meet cached rows directly: [B, T, H, nope + R] -> [H, B, T, r + R]."""
    batch, tokens, heads, _ = q.shape
    q = q.permute(2, 0, 1, 3)
    flat = torch.bmm(q[..., :nope].reshape(heads, batch * tokens, nope), kv_b[:, :nope].to(q.dtype))
    return torch.cat([flat.view(heads, batch, tokens, -1), q[..., nope:]], -1)


def from_latent(latent: Tensor, kv_b: Tensor, nope: int) -> Tensor:
    """Weighted rows [H, B, T, >= r] to values [B, T, H, v]."""
    heads, batch, tokens, _ = latent.shape
    flat = latent[..., : kv_b.shape[-1]].reshape(heads, batch * tokens, kv_b.shape[-1])
    values = torch.bmm(flat, kv_b[:, nope:].to(latent.dtype).transpose(1, 2))
    return values.view(heads, batch, tokens, -1).permute(1, 2, 0, 3)


def _absorbed(q: Tensor, segments: Sequence[Tensor], scale: float, attend_block: Attend) -> Tensor:
    """q [H, t, r + R], the last t rows its own tokens' -> weighted rows [H, t, r + R]."""
    heads, tokens, width = q.shape
    before = sum(len(segment) for segment in segments) - tokens
    own = _slice(segments, before, before + tokens).to(q.dtype).expand(1, heads, -1, -1)
    out, lse = attend_block(q[None], own, own, scale, True)
    results = [(out.reshape(1, 1, -1, width), lse.reshape(1, 1, -1))]
    flat = q.reshape(1, 1, heads * tokens, width)
    return _over_rows(flat, _first(segments, before), scale, attend_block, results).view(heads, tokens, width)


def _over_rows(
    q: Tensor,
    segments: Sequence[Tensor],
    scale: float,
    attend_block: Attend,
    others: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """q [1, 1, n, r + R] against all rows, and results over other rows, put together -> [1, 1, n, r + R]."""
    results = list(others)
    for piece in _pieces(segments):
        keys = piece if piece.dtype == q.dtype else piece.to(q.dtype)
        queries = q if piece.shape[0] == 1 else q.expand(piece.shape[0], -1, -1, -1)
        results.append(attend_block(queries, keys, keys, scale, False))
    if len(results) == 1 and results[0][0].shape[0] == 1:
        return results[0][0]
    weights = torch.cat([lse for _, lse in results]).softmax(0).unsqueeze(-1)
    return (torch.cat([out for out, _ in results]) * weights).sum(0, keepdim=True).to(q.dtype)


def _first(segments: Sequence[Tensor], count: int) -> list[Tensor]:
    kept = []
    for segment in segments:
        if count > 0:
            kept.append(segment[:count])
        count -= len(segment)
    return kept


def _pieces(segments: Sequence[Tensor]) -> Iterator[Tensor]:
    """Segments as [n, 1, rows, r + R]: n > 1 where several threads, each of which takes one, are worth it."""
    for segment in segments:
        rows, width = segment.shape
        if rows < LONG_TOKENS:
            yield segment.view(1, 1, rows, width)
        elif segment.device.type != "cpu":  # bounds the scores that `attend_plain` holds
            yield from (part[None, None] for part in segment.split(LONG_TOKENS))
        else:
            threads = torch.get_num_threads()
            each = rows // threads
            yield segment[: threads * each].view(threads, 1, each, width)
            if threads * each < rows:
                yield segment[threads * each :][None, None]
