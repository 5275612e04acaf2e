"""Absorbed MLA decode of one token per sequence in Triton: split over the cache, then combined (flash decoding, arXiv 2205.14135).

Cached rows [latent | rope part] are keys whole and values in their latent part, shared by all heads (`mla`). A program takes one
range of a sequence's rows for a block of its heads, so each row is read once per block of heads: scores of a tile of rows from two
products (latent, rope), online softmax in base 2, and the same tile's latent part as values. Every range leaves its normalised
result and log2-sum-exp; a second kernel weighs them.

Rows are found through a table of addresses, one per sequence and GRANULE (256) rows, which `kleval.models.latents` lays out; tiles
never cross a granule. Lengths are read on the device and the grid depends on shapes alone: a captured graph stays right as sequences
grow. Addresses and offsets are 64-bit.

Sizes for an H200 (132 SMs, 227 KB of shared memory each) at the published shape, bf16, tiles of 64 rows: two tiles in shared memory
are 144 KB, the queries of 32 heads 36 KB, with weights 184 KB: one program per SM, one tile on its way while the other is used.
The accumulator, 32 x 512 float32 over 8 warps, takes 64 of 239 registers a thread. Compiled for sm_90 by Triton 3.6 and 3.9 that is
188432 B of shared memory, nothing spilled, rows copied 16 bytes at a time. STAGES is 5 because the address is itself a load: two
of the stages lie between it and the rows. Per row 1152 bytes and 2 * 32 * (576 + 512) = 70 kFLOP: 4.8 TB/s of rows need 290
TFLOP/s.
`split_count` makes programs fill whole rounds of SMs; at 132 ranges the intermediate results are 8.7 MB, against 1.2 GB of rows at 1M
tokens.

Tested under Triton's interpreter and compiled for sm_90; it has not yet run on a GPU, and no speed is claimed for it.
"""

from __future__ import annotations

import functools
import math
import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from kleval.ops.mla import GRANULE

HEAD_BLOCK = 32
SMS = 132  # taken where there is no device to ask
MIN_RANGE = 128  # rows: below that a range costs more to combine than it saves
_TILE_BYTES = 72 * 1024
_COMBINE_RANGES, _COMBINE_WIDTH = 32, 128
_LOG2E = math.log2(math.e)


@triton.jit
def _decode_kernel(  # type: ignore[no-untyped-def]
    q,
    table,
    lengths,
    partial,
    partial_lse,
    scale,
    extra,
    heads,
    q_batch,
    q_head,
    table_batch,
    RANK: tl.constexpr,
    ROPE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    TILE: tl.constexpr,
    GRANULE_ROWS: tl.constexpr,
    LEAST: tl.constexpr,
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    DOT: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Program (sequence, block of heads, range). partial [B, H, ranges, RANK], partial_lse [B, H, ranges], in base 2."""
    b = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    part = tl.program_id(2)
    parts = tl.num_programs(2)
    dtype = q.dtype.element_ty
    total = tl.load(lengths + b) + extra
    each = tl.maximum(tl.cdiv(total, parts), LEAST)
    each = tl.cdiv(each, TILE) * TILE
    begin = part * each
    end = tl.minimum(begin + each, total)
    r = tl.arange(0, BLOCK_R)
    p = tl.arange(0, BLOCK_P)
    has_h = h < heads
    out_at = (b * heads + h) * parts + part
    if begin >= end:
        tl.store(partial_lse + out_at, tl.full([BLOCK_H], float("-inf"), tl.float32), mask=has_h)
    else:
        q_at = q + b * q_batch + h[:, None].to(tl.int64) * q_head
        q_latent = tl.load(q_at + r[None, :], mask=has_h[:, None] & (r[None, :] < RANK), other=0.0)
        q_rope = tl.load(q_at + RANK + p[None, :], mask=has_h[:, None] & (p[None, :] < ROPE), other=0.0)
        top = tl.full([BLOCK_H], float("-inf"), tl.float32)
        weight = tl.zeros([BLOCK_H], tl.float32)
        acc = tl.zeros([BLOCK_H, BLOCK_R], tl.float32)
        n = tl.arange(0, TILE)
        row = n[:, None].to(tl.int64) * (RANK + ROPE)
        for at in tl.range(begin, end, TILE, num_stages=STAGES):
            address = tl.load(table + b * table_batch + at // GRANULE_ROWS)
            rows = address.to(tl.pointer_type(dtype)) + (at % GRANULE_ROWS) * (RANK + ROPE)
            inside = at + n < end
            latent_at = rows + row + r[None, :]
            rope_at = rows + row + RANK + p[None, :]
            if ALIGNED:
                latent_at = tl.multiple_of(latent_at, [16, 16])
                rope_at = tl.multiple_of(rope_at, [16, 16])
            latent = tl.load(latent_at, mask=inside[:, None] & (r[None, :] < RANK), other=0.0)
            rope = tl.load(rope_at, mask=inside[:, None] & (p[None, :] < ROPE), other=0.0)
            latent, rope = latent.to(DOT), rope.to(DOT)
            scores = tl.dot(q_latent.to(DOT), tl.trans(latent), input_precision=PRECISION)
            scores = tl.dot(q_rope.to(DOT), tl.trans(rope), scores, input_precision=PRECISION) * scale
            scores = tl.where(inside[None, :], scores, float("-inf"))
            new_top = tl.maximum(top, tl.max(scores, 1))
            e = tl.exp2(scores - new_top[:, None])
            shrink = tl.exp2(top - new_top)
            weight = weight * shrink + tl.sum(e, 1)
            acc = tl.dot(e.to(dtype).to(DOT), latent, acc * shrink[:, None], input_precision=PRECISION)
            top = new_top
        to = partial + out_at[:, None] * RANK + r[None, :]
        tl.store(to, acc / weight[:, None], mask=has_h[:, None] & (r[None, :] < RANK))
        tl.store(partial_lse + out_at, top + tl.log2(weight), mask=has_h)


@triton.jit
def _combine_kernel(  # type: ignore[no-untyped-def]
    partial,
    partial_lse,
    out,
    heads,
    parts,
    out_batch,
    out_head,
    RANK: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Program (sequence and head, block of columns): out = sum of the ranges' results in proportion to 2^lse."""
    program = tl.program_id(0).to(tl.int64)
    b = program // heads
    h = program % heads
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    s = tl.arange(0, BLOCK_S)
    top = tl.full([BLOCK_S], float("-inf"), tl.float32)
    for first in range(0, parts, BLOCK_S):
        lse = tl.load(partial_lse + program * parts + first + s, mask=first + s < parts, other=float("-inf"))
        top = tl.maximum(top, lse)
    highest = tl.max(top, 0)
    highest = tl.where(highest == float("-inf"), 0.0, highest)  # a sequence without rows
    acc = tl.zeros([BLOCK_R], tl.float32)
    weight = tl.zeros([BLOCK_S], tl.float32)
    for first in range(0, parts, BLOCK_S):
        lse = tl.load(partial_lse + program * parts + first + s, mask=first + s < parts, other=float("-inf"))
        e = tl.exp2(lse - highest)
        weight += e
        # Ranges without rows wrote nothing: what lies there must not be read.
        used = (lse > float("-inf"))[:, None] & (r[None, :] < RANK)
        at = partial + (program * parts + first + s[:, None]) * RANK + r[None, :]
        acc += tl.sum(tl.load(at, mask=used, other=0.0) * e[:, None], 0)
    total = tl.sum(weight, 0)
    result = acc / tl.where(total > 0.0, total, 1.0)
    tl.store(out + b * out_batch + h * out_head + r, result.to(out.dtype.element_ty), mask=r < RANK)


@triton.jit
def _append_kernel(  # type: ignore[no-untyped-def]
    new,
    table,
    lengths,
    new_batch,
    table_batch,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    GRANULE_ROWS: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    at = tl.load(lengths + b)
    address = tl.load(table + b * table_batch + at // GRANULE_ROWS)
    rows = address.to(tl.pointer_type(new.dtype.element_ty)) + (at % GRANULE_ROWS) * WIDTH
    i = tl.arange(0, BLOCK)
    inside = i < tl.where(address == 0, 0, WIDTH)  # no room: nowhere to write
    tl.store(rows + i, tl.load(new + b * new_batch + i, mask=inside), mask=inside)


def append(new: Tensor, table: Tensor, lengths: Tensor) -> None:
    """Put new [B, width] behind each sequence's rows: row lengths[b] of sequence b. In the rows' dtype; room must have been made."""
    batch, width = new.shape
    new = new if new.stride(-1) == 1 else new.contiguous()
    _append_kernel[(batch,)](
        new,
        table,
        lengths,
        new.stride(0),
        table.stride(0),
        WIDTH=width,
        BLOCK=triton.next_power_of_2(width),
        GRANULE_ROWS=GRANULE,
    )


def decode(
    q: Tensor,
    table: Tensor,
    lengths: Tensor,
    rank: int,
    scale: float,
    extra: int = 0,
    splits: int | None = None,
) -> Tensor:
    """One token's queries against all rows of its sequence.

    q [B, H, rank + R] in latent space (`mla.to_latent`), of the rows' dtype, any strides of B and H. table int64 [B, granules]:
    addresses of 256 rows [rank + R] each. lengths int64 [B] on the device; lengths[b] + extra rows are seen. Returns [B, H, rank]
    (a view of [H, B, rank]), for a sequence without rows 0.
    """
    batch, heads, width = q.shape
    q = q if q.stride(-1) == 1 else q.contiguous()
    head_block = min(HEAD_BLOCK, max(16, triton.next_power_of_2(heads)))
    blocks = triton.cdiv(heads, head_block)
    parts = splits or split_count(batch * blocks, _sms(q.device))
    partial = torch.empty(batch, heads, parts, rank, device=q.device, dtype=torch.float32)
    lse = torch.empty(batch, heads, parts, device=q.device, dtype=torch.float32)
    rank_block, rope_block = triton.next_power_of_2(rank), max(16, triton.next_power_of_2(width - rank))
    tile = tile_rows(rank_block + rope_block, q.element_size())
    _decode_kernel[(batch, blocks, parts)](
        q,
        table,
        lengths,
        partial,
        lse,
        scale * _LOG2E,
        extra,
        heads,
        q.stride(0),
        q.stride(1),
        table.stride(0),
        RANK=rank,
        ROPE=width - rank,
        BLOCK_H=head_block,
        BLOCK_R=rank_block,
        BLOCK_P=rope_block,
        TILE=tile,
        GRANULE_ROWS=GRANULE,
        LEAST=MIN_RANGE,
        ALIGNED=width * q.element_size() % 16 == 0 and rank * q.element_size() % 16 == 0,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        DOT=_dot_dtype(q.dtype),
        STAGES=5,
        num_warps=8,
    )
    out = torch.empty(heads, batch, rank, device=q.device, dtype=q.dtype).transpose(0, 1)
    _combine_kernel[(batch * heads, triton.cdiv(rank, _COMBINE_WIDTH))](
        partial,
        lse,
        out,
        heads,
        parts,
        out.stride(0),
        out.stride(1),
        RANK=rank,
        BLOCK_S=_COMBINE_RANGES,
        BLOCK_R=_COMBINE_WIDTH,
    )
    return out


def _dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """The rows' own; but Triton's interpreter multiplies the bits of bfloat16 numbers, so there their float32 values."""
    if dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET") != "1":
        return tl.bfloat16
    return tl.float16 if dtype == torch.float16 else tl.float32


def tile_rows(width: int, element_bytes: int) -> int:
    """Rows per tile, 16 to 64: two tiles and the queries fit into shared memory; float32 products also want registers."""
    share = _TILE_BYTES if element_bytes < 4 else _TILE_BYTES // 2
    fitting = share // (width * element_bytes)
    return max(16, min(64, 1 << (fitting.bit_length() - 1 if fitting else 0)))


def split_count(programs: int, sms: int) -> int:
    """Ranges per sequence, so that programs * ranges fill whole rounds of SMs best; fewer rounds where two are as good."""

    def filled(ranges: int) -> float:
        return programs * ranges / (-(-programs * ranges // sms) * sms)

    candidates = sorted({max(1, sms * rounds // programs) for rounds in (1, 2, 3, 4)})
    return max(candidates, key=lambda ranges: (round(filled(ranges), 2), -ranges))


@functools.cache
def _sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else SMS
