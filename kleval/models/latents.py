"""Latent rows of a batch of sequences, kept in segments that never move and may be shared.

A sequence's rows lie in a few segments [L, capacity, width], one slice per MLA layer, each starting at a multiple of GRANULE
tokens. Running out of room adds a segment; nothing is copied, nothing concatenated. A fork holds the same segments up to its own
length. Only one sequence, the owner, writes into a segment; a fork that goes on takes a new segment from the last granule
boundary on, copying the rows of that one partial granule, so that any granule of a sequence is contiguous. An owner that is gone (a
restored or dropped sequence) leaves its room to a sequence that sees everything written there.

For kernels, `table` holds the address of every granule.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from kleval.ops.mla import GRANULE as GRANULE  # tokens; segments start and end at multiples of it

MAX_GROWTH_TOKENS = 65536
_TABLE_GRANULES = 64


def growth_tokens(length: int) -> int:
    """Size of the segment that a sequence of that many tokens grows by."""
    return min(MAX_GROWTH_TOKENS, max(GRANULE, _up(length // 8)))


def _up(tokens: int) -> int:
    return -(-tokens // GRANULE) * GRANULE


class Segment:
    """layers: one [capacity, width] per MLA layer, of one storage, for the tokens first ... first + capacity - 1."""

    __slots__ = ("__weakref__", "end", "first", "holders", "layers", "owner")

    def __init__(self, shape: tuple[int, int, int], first: int, owner: Row, like: Tensor) -> None:
        self.layers = like.new_empty(shape).unbind(0)
        self.first, self.end = first, first + shape[1]
        self.holders: weakref.WeakSet[Row] = weakref.WeakSet([owner])
        self.owner = weakref.ref(owner)


class Row:
    """One sequence: segments in order, each seen up to where the next begins; length tokens are in, claimed may be written."""

    __slots__ = ("__weakref__", "claimed", "length", "segments")

    def __init__(self) -> None:
        self.length = self.claimed = 0
        self.segments: list[Segment] = []

    def copy(self) -> Row:
        """Another sequence with the same tokens."""
        row = Row()
        row.length = row.claimed = self.length
        row.segments = [segment for segment in self.segments if segment.first < self.length]
        for segment in row.segments:
            segment.holders.add(row)
        return row

    def edges(self) -> list[int]:
        """Token positions at which segments begin, and where the last ends."""
        return [*(segment.first for segment in self.segments), self.segments[-1].end] if self.segments else [0]

    def writable(self) -> int:
        """The position up to which this sequence may write in place."""
        if not self.segments:
            return 0
        at = next(s for s in reversed(self.segments) if s.first <= self.length)
        return self.segments[-1].end if at.end <= self.length or self._owns(at) else self.length

    def _owns(self, segment: Segment) -> bool:
        owner = segment.owner()
        if owner is None and all(row is self or row._sees(segment) <= self.length for row in segment.holders):
            segment.owner = weakref.ref(self)
            owner = self
        return owner is self

    def _sees(self, segment: Segment) -> int:
        following = self.segments[self.segments.index(segment) + 1 :]
        return min(max(self.length, self.claimed), following[0].first if following else segment.end)


@dataclass(slots=True)
class Latents:
    """Rows of all MLA layers of a batch. lengths [B]: tokens per row, on the device; `rows` knows the same on the host.

    counts: tokens per row of the step under way. table [L, B, granules]: addresses, kept where `tracked`. epoch changes whenever
    tensors that a captured step refers to have been replaced, grown whenever a row has got a segment.
    """

    layers: int
    width: int
    like: Tensor
    lengths: Tensor
    rows: list[Row]
    counts: list[int] | None = None
    table: Tensor | None = None
    tracked: bool = False
    epoch: int = field(default=0)
    grown: int = field(default=0)

    @classmethod
    def empty(cls, layers: int, width: int, batch: int, device: torch.device | str, dtype: torch.dtype) -> Latents:
        like = torch.empty(0, device=device, dtype=dtype)
        lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        return cls(layers, width, like, lengths, [Row() for _ in range(batch)], tracked=like.is_cuda)

    def make_room(self, tokens: Sequence[int], exact: bool = False) -> None:
        """Room for so many more tokens in each row; what is missing is one segment, no larger than needed if exact."""
        for index, (row, more) in enumerate(zip(self.rows, tokens, strict=True)):
            end = row.length + more
            if not self.layers or end <= row.length or end <= (have := row.writable()):
                continue
            keeps = row.segments
            if have == row.length and have % GRANULE:
                have -= have % GRANULE
                partial = row.segments[-1]
                keeps = [s for s in row.segments if s.first < have]
            else:
                partial = None
            size = _up(end - have)
            segment = self._segment(row, have, size if exact else max(size, growth_tokens(row.length)))
            if partial is not None:
                count = row.length - have
                for ours, theirs in zip(segment.layers, partial.layers, strict=True):
                    ours[:count] = theirs[have - partial.first :][:count]
                for dropped in set(row.segments) - set(keeps):
                    dropped.holders.discard(row)
            row.segments = [*keeps, segment]
            self.grown += 1
            if self.tracked:
                self._record(index, segment)

    def _segment(self, row: Row, first: int, tokens: int) -> Segment:
        return Segment((self.layers, tokens, self.width), first, row, self.like)

    def begin(self, tokens: int | Sequence[int] | Tensor) -> list[int]:
        """Open a step of so many tokens per row: make room and let `write` know. Returns them as a list."""
        counts = self.per_row(tokens)
        self.make_room(counts)
        for row, count in zip(self.rows, counts, strict=True):
            row.claimed = row.length + count
        self.counts = counts
        return counts

    def per_row(self, tokens: int | Sequence[int] | Tensor) -> list[int]:
        if isinstance(tokens, int):
            return [tokens] * len(self.rows)
        counts = [int(n) for n in (tokens.tolist() if isinstance(tokens, Tensor) else tokens)]
        if len(counts) != len(self.rows):
            raise ValueError(f"{len(counts)} counts for {len(self.rows)} rows")
        return counts

    def advance_host(self, counts: Sequence[int]) -> None:
        for row, count in zip(self.rows, counts, strict=True):
            row.length += count
            row.claimed = row.length
        self.counts = None

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        if len(set(rows)) != len(rows):
            raise ValueError("keep: a row is named twice; fork makes copies")
        self.rows, self.counts, self.lengths = [self.rows[i] for i in rows], None, self.lengths[index]
        if self.table is not None:
            self.table = self.table[:, index].contiguous()
        self.epoch += 1

    def fork(self, rows: Sequence[int], index: Tensor) -> Latents:
        copies = [self.rows[i].copy() for i in rows]
        fork = Latents(self.layers, self.width, self.like, self.lengths[index], copies, tracked=self.tracked)
        if self.table is not None:
            fork.table = self.table[:, index].contiguous()
        return fork

    def track(self) -> None:
        """Keep `table` from now on (always so on CUDA)."""
        self.tracked = True
        for index, row in enumerate(self.rows):
            for segment in row.segments:
                self._record(index, segment)

    def _record(self, index: int, segment: Segment) -> None:
        """Write a segment's addresses into the table. Device work without waiting: arguments are host integers."""
        if self.table is None or self.table.shape[2] * GRANULE < segment.end:
            granules = _TABLE_GRANULES
            while granules * GRANULE < segment.end:
                granules *= 2
            table = self.lengths.new_zeros(self.layers, len(self.rows), granules)
            if self.table is not None:
                table[:, :, : self.table.shape[2]] = self.table
            self.table = table
            self.epoch += 1
        bytes_per_granule = GRANULE * self.width * self.like.element_size()
        first, count = segment.first // GRANULE, (segment.end - segment.first) // GRANULE
        granules_in_storage = torch.arange(self.layers * count, device=self.lengths.device).view(self.layers, count)
        addresses = granules_in_storage * bytes_per_granule + segment.layers[0].data_ptr()
        self.table[:, index, first : first + count] = addresses

    def views(self, layer: int, index: int, total: int) -> list[Tensor]:
        """Rows 0 ... total - 1 of a sequence, [n, width] per segment."""
        row = self.rows[index]
        views = []
        for segment, (first, end) in zip(row.segments, pairwise(row.edges()), strict=True):
            if first >= total:
                break
            whole = segment.layers[layer]
            views.append(whole if end <= total and end == segment.end else whole[: min(end, total) - first])
        return views

    def write(self, layer: int, index: int, new: Tensor) -> None:
        """Put new [n, width] behind a sequence's rows; room must have been made."""
        row = self.rows[index]
        at, done = row.length, 0
        for segment, (first, end) in zip(row.segments, pairwise(row.edges()), strict=True):
            if end <= at:
                continue
            count = min(end - at, len(new) - done)
            segment.layers[layer][at - first : at - first + count] = new[done : done + count]
            at, done = at + count, done + count
            if done == len(new):
                return
        if done < len(new):
            raise RuntimeError("no room: `begin` or `reserve` comes before writing")

    def storages(self) -> dict[int, int]:
        """Address and bytes of every storage that some row holds."""
        segments = {id(s): s for row in self.rows for s in row.segments}.values()
        held = (s.layers[0].untyped_storage() for s in segments)
        return {storage.data_ptr(): storage.nbytes() for storage in held}
