"""The state of a batch of sequences: latent rows that grow (MLA), or a fixed recurrent state and convolution tail (KDA, GDN).

Latent rows lie in segments that never move (see `latents`): a step concatenates and copies nothing, and forks, snapshots and
restored caches share what is full. Rows of the batch may have different lengths, which are known on the host, so that nothing here
waits for a device. How much more is allocated than used: without `reserve`, at most one growth block (an eighth of the length,
between 256 and 65536 tokens) per row and MLA layer; every point at which a fork went on by itself adds at most one more.

A step is `begin` (room, how many tokens are real), the layers' writes, `advance`. On CUDA addresses and lengths also lie on the
device, so that a captured step can be replayed: `begin(1)`, replay, `advance_host(1)`; capture again when `epoch` has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kleval.models.config import ModelConfig
from kleval.models.costs import StateBytes
from kleval.models.latents import Latents


@dataclass(frozen=True, slots=True)
class LatentState:
    """One MLA layer's view of the latent rows."""

    latents: Latents
    layer: int

    def write(self, new: Tensor) -> None:
        """Put new [B, T, rank + rope] behind the rows, in each as many of the T as `begin` said (else all)."""
        new = new if new.dtype == self.dtype else new.to(self.dtype)
        for index, (row, count) in enumerate(zip(new.unbind(0), self.counts(new.shape[1]), strict=True)):
            if count:
                self.latents.write(self.layer, index, row if count == new.shape[1] else row[:count])

    def counts(self, tokens: int) -> list[int]:
        """Real tokens of each row in the step under way; a step that nobody opened is opened here."""
        counts = self.latents.counts
        return self.latents.begin(tokens) if counts is None else counts

    def rows(self) -> list[list[Tensor]]:
        """Per sequence its segments [n, rank + rope], tokens of the step under way included."""
        counts = self.latents.counts or [0] * len(self.latents.rows)
        return [
            self.latents.views(self.layer, index, row.length + count)
            for index, (row, count) in enumerate(zip(self.latents.rows, counts, strict=True))
        ]

    @property
    def dtype(self) -> torch.dtype:
        return self.latents.like.dtype

    @property
    def lengths(self) -> Tensor:
        """int64 [B] on the device: tokens before the step under way."""
        return self.latents.lengths

    @property
    def table(self) -> Tensor | None:
        """int64 [B, granules]: the address of every GRANULE tokens of every row; what lies past a row's room is 0."""
        return None if self.latents.table is None else self.latents.table[self.layer]


@dataclass(slots=True)
class RecurrentState:
    """recurrent [B, H, K, V] float32; conv [B, 3 H K, width - 1]: the last inputs of the q, k and v convolutions."""

    recurrent: Tensor
    conv: Tensor

    def set(self, recurrent: Tensor, conv: Tensor) -> None:
        """The state after a step. On CUDA it is copied into place: a captured step knows these tensors by address."""
        if self.recurrent.is_cuda:
            for ours, new in ((self.recurrent, recurrent), (self.conv, conv)):
                if ours is not new:
                    ours.copy_(new)
        else:
            self.recurrent, self.conv = recurrent, conv


State = LatentState | RecurrentState


class HybridCache:
    """States of all layers for `batch` sequences.

    dtype: of latent rows and convolution tails; recurrent states are float32 (float64 if dtype is). capacity: tokens per row to
    make room for at once. lengths int64 [B], on the device, and lengths_host: tokens that each row has taken in.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        capacity: int | Sequence[int] = 0,
    ) -> None:
        self.config = config
        width = config.kv_lora_rank + config.qk_rope_head_dim
        self._latents = Latents.empty(config.layer_mixers.count("mla"), width, batch, device, dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        heads, dim = config.kda_num_heads, config.kda_head_dim
        taps = config.short_conv_kernel_size - 1
        recurrent: list[RecurrentState] = []
        for mixer in config.layer_mixers:
            if mixer != "mla":
                state = torch.zeros(batch, heads, dim, dim, device=device, dtype=wide)
                recurrent.append(
                    RecurrentState(state, torch.zeros(batch, 3 * heads * dim, taps, device=device, dtype=dtype))
                )
        self._assemble(recurrent)
        self.reserve(capacity)

    def _assemble(self, recurrent: Sequence[RecurrentState]) -> None:
        states, latent = iter(recurrent), iter(range(self._latents.layers))
        self.layers: list[State] = [
            LatentState(self._latents, next(latent)) if mixer == "mla" else next(states)
            for mixer in self.config.layer_mixers
        ]

    @property
    def lengths(self) -> Tensor:
        return self._latents.lengths

    @property
    def lengths_host(self) -> list[int]:
        return [row.length for row in self._latents.rows]

    @property
    def dtype(self) -> torch.dtype:
        """Of latent rows and convolution tails."""
        return self._latents.like.dtype

    @property
    def epoch(self) -> int:
        """Changes whenever tensors that a captured step refers to have been replaced."""
        return self._latents.epoch

    @property
    def layout(self) -> tuple[int, int]:
        """Changes whenever latent rows lie elsewhere, or there are more places where they lie."""
        return self._latents.epoch, self._latents.grown

    def reserve(self, tokens: int | Sequence[int]) -> None:
        """Make room for that many more tokens in each row: one segment of what is missing, exact to 256 tokens."""
        self._latents.make_room(self._latents.per_row(tokens), exact=True)

    def begin(self, tokens: int | Sequence[int] | Tensor) -> list[int]:
        """Open a step that appends so many tokens to each row; room grows where it has run out. Returns the counts."""
        return self._latents.begin(tokens)

    def advance(self, tokens: int | Sequence[int] | Tensor) -> None:
        """So many tokens have been taken in. While a CUDA graph is captured only its device part happens, in the graph."""
        lengths = self._latents.lengths
        if isinstance(tokens, int):
            lengths.add_(tokens)
            if lengths.is_cuda and torch.cuda.is_current_stream_capturing():
                self._latents.counts = None
                return
        counts = self._latents.per_row(tokens)
        if not isinstance(tokens, int):
            lengths.add_(torch.tensor(counts, device=lengths.device))
        self._latents.advance_host(counts)

    def advance_host(self, tokens: int) -> None:
        """After the replay of a captured step, whose device part has advanced `lengths`: the host's part."""
        self._latents.advance_host([tokens] * len(self._latents.rows))

    def track_addresses(self) -> None:
        """Keep the table of addresses, as on CUDA, from now on."""
        self._latents.track()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these (distinct, in this order); what the others held is freed."""
        index = self._index(rows)
        self._latents.keep(rows, index)
        for state in self._recurrent():
            state.recurrent, state.conv = state.recurrent[index], state.conv[index]

    def fork(self, rows: Sequence[int] | Tensor | None = None) -> HybridCache:
        """An independent cache of the given rows in the given order (they may repeat), or of all.

        Latent rows are shared, recurrent states copied; neither cache ever sees what the other takes in later.
        """
        chosen = [int(i) for i in (range(len(self._latents.rows)) if rows is None else rows)]
        index = self._index(chosen)
        copy = object.__new__(HybridCache)
        copy.config, copy._latents = self.config, self._latents.fork(chosen, index)
        copy._assemble([RecurrentState(s.recurrent[index], s.conv[index]) for s in self._recurrent()])
        return copy

    def snapshot(self) -> HybridCache:
        """A copy to `restore` from, any number of times."""
        return self.fork()

    def restore(self, snapshot: HybridCache) -> None:
        """Go back to a snapshot, which stays as it is."""
        copy, epoch = snapshot.fork(), self.epoch
        self._latents, self.layers = copy._latents, copy.layers
        self._latents.epoch = epoch + 1

    @torch.no_grad()
    def fill(self, tokens: int | Sequence[int], seed: int = 0) -> None:
        """Bring every row to that depth without running a model: random content of the size that a model would write.

        Latent rows are standard normal (they are RMS-normalised), as are convolution inputs; recurrent states have the
        standard deviation of a sum of a few values per channel, K^-1/2. ValueError when a row is deeper already.
        """
        more = [
            depth - row.length for depth, row in zip(self._latents.per_row(tokens), self._latents.rows, strict=True)
        ]
        if min(more, default=0) < 0:
            raise ValueError("fill: a row is deeper than that already")
        device = self.lengths.device
        generator = torch.Generator(device).manual_seed(seed)
        self.reserve(more)
        self.begin(more)
        for state in self.layers:
            if isinstance(state, RecurrentState):
                state.recurrent.normal_(0.0, state.recurrent.shape[2] ** -0.5, generator=generator)
                state.conv.normal_(generator=generator)
                continue
            for views, count in zip(state.rows(), more, strict=True):
                for view in reversed(views):
                    fresh = view[max(0, len(view) - count) :]
                    fresh.normal_(generator=generator)
                    count -= len(fresh)
        self.advance(more)

    def used_by_component(self) -> StateBytes:
        """Bytes that hold tokens, summed from live shapes: latent rows up to each row's length, states and tails whole."""
        latent = sum(
            view.numel() * view.element_size()
            for state in self.layers
            if isinstance(state, LatentState)
            for index, length in enumerate(self.lengths_host)
            for view in self._latents.views(state.layer, index, length)
        )
        recurrent = sum(s.recurrent.numel() * s.recurrent.element_size() for s in self._recurrent())
        conv = sum(s.conv.numel() * s.conv.element_size() for s in self._recurrent())
        return StateBytes(latent, recurrent, conv)

    def used_bytes(self) -> int:
        """`used_by_component` in one number; equals the closed form `config.state_bytes` summed over the rows."""
        return self.used_by_component().total

    def allocated_bytes(self) -> int:
        """Bytes of the storages behind all states, each counted once. (Addresses for kernels are no state: 8 B per 256 tokens.)"""
        storages = self._latents.storages()
        for state in self._recurrent():
            for tensor in (state.recurrent, state.conv):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(storages.values())

    def _recurrent(self) -> Iterator[RecurrentState]:
        return (state for state in self.layers if isinstance(state, RecurrentState))

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(list(rows), dtype=torch.int64, device=self.lengths.device)
