"""The state of a batch of sequences: latent rows that grow (MLA), or a fixed recurrent state and convolution tail (KDA, GDN).

Latent rows live in one preallocated tensor per layer that grows by blocks of a quarter of its size, so that a decode step
concatenates nothing. Rows of the batch may have different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kleval.models.config import ModelConfig

BLOCK_TOKENS = 256


@dataclass(slots=True)
class LatentState:
    """rows [B, capacity, rank + rope]; what lies past a row's length is never read."""

    rows: Tensor

    def write(self, new: Tensor, starts: Tensor) -> Tensor:
        """Put new [B, T, rank + rope] at starts[b] ... and return all rows. Capacity must suffice."""
        tokens = new.shape[1]
        new = new.to(self.rows.dtype)
        first = int(starts[0])
        if bool((starts == first).all()):
            self.rows[:, first : first + tokens] = new
        else:
            at = starts[:, None] + torch.arange(tokens, device=starts.device)
            self.rows.scatter_(1, at[..., None].expand_as(new), new)
        return self.rows


@dataclass(slots=True)
class RecurrentState:
    """recurrent [B, H, K, V] float32; conv [B, 3 H K, width - 1]: the last inputs of the q, k and v convolutions."""

    recurrent: Tensor
    conv: Tensor


class HybridCache:
    """States of all layers for `batch` sequences.

    dtype: of latent rows and convolution tails; recurrent states are float32 (float64 if dtype is). capacity: tokens to make
    room for at once. lengths [B]: tokens that each row has taken in.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        capacity: int = 0,
    ) -> None:
        self.config = config
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self.layers: list[LatentState | RecurrentState] = []
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        heads, dim = config.kda_num_heads, config.kda_head_dim
        for mixer in config.layer_mixers:
            if mixer == "mla":
                width = config.kv_lora_rank + config.qk_rope_head_dim
                self.layers.append(LatentState(torch.zeros(batch, capacity, width, device=device, dtype=dtype)))
            else:
                recurrent = torch.zeros(batch, heads, dim, dim, device=device, dtype=wide)
                taps = config.short_conv_kernel_size - 1
                conv = torch.zeros(batch, 3 * heads * dim, taps, device=device, dtype=dtype)
                self.layers.append(RecurrentState(recurrent, conv))

    def reserve(self, tokens: int) -> None:
        """Make room for that many more tokens in every row."""
        needed = int(self.lengths.max()) + tokens if len(self.lengths) else 0
        for layer in self.layers:
            if isinstance(layer, LatentState) and layer.rows.shape[1] < needed:
                old = layer.rows
                capacity = max(needed, old.shape[1] + old.shape[1] // 4)
                capacity = -(-capacity // BLOCK_TOKENS) * BLOCK_TOKENS
                layer.rows = _grown(old, capacity)

    def advance(self, tokens: int | Tensor) -> None:
        self.lengths = self.lengths + tokens

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these. One layer at a time: never are there two copies of everything, as a fork would make."""
        index = torch.as_tensor(rows, device=self.lengths.device)
        self.lengths = self.lengths[index]
        for layer in self.layers:
            if isinstance(layer, LatentState):
                layer.rows = layer.rows[index]
            else:
                layer.recurrent, layer.conv = layer.recurrent[index], layer.conv[index]

    def fork(self, rows: Sequence[int] | Tensor | None = None) -> HybridCache:
        """An independent copy, of the given rows in the given order (they may repeat), or of all."""
        device = self.lengths.device
        index = torch.arange(len(self.lengths), device=device) if rows is None else torch.as_tensor(rows, device=device)
        copy = object.__new__(HybridCache)
        copy.config, copy.lengths = self.config, self.lengths[index]
        used = int(copy.lengths.max()) if len(index) else 0
        capacity = -(-used // BLOCK_TOKENS) * BLOCK_TOKENS
        copy.layers = [
            LatentState(_grown(layer.rows[index, :used], capacity))
            if isinstance(layer, LatentState)
            else RecurrentState(layer.recurrent[index], layer.conv[index])
            for layer in self.layers
        ]
        return copy

    def snapshot(self) -> HybridCache:
        """A copy to `restore` from, any number of times."""
        return self.fork()

    def restore(self, snapshot: HybridCache) -> None:
        """Go back to a snapshot, which stays as it is."""
        copy = snapshot.fork()
        self.lengths, self.layers = copy.lengths, copy.layers

    def used_bytes(self) -> int:
        """Bytes that hold tokens: latent rows up to each row's length, recurrent states and tails whole."""
        total = int(self.lengths.sum())
        return sum(
            total * layer.rows.shape[2] * layer.rows.element_size() if isinstance(layer, LatentState) else _bytes(layer)
            for layer in self.layers
        )

    def allocated_bytes(self) -> int:
        """Bytes of the storages behind all states."""
        tensors = [
            t
            for layer in self.layers
            for t in ([layer.rows] if isinstance(layer, LatentState) else [layer.recurrent, layer.conv])
        ]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _grown(rows: Tensor, capacity: int) -> Tensor:
    grown = rows.new_zeros(rows.shape[0], capacity, rows.shape[2])
    grown[:, : rows.shape[1]] = rows
    return grown


def _bytes(state: RecurrentState) -> int:
    return sum(t.numel() * t.element_size() for t in (state.recurrent, state.conv))


def state_bytes(config: ModelConfig, tokens: int, dtype: torch.dtype = torch.float32) -> int:
    """Closed form of `used_bytes` for one sequence of that many tokens."""
    size = torch.finfo(dtype).bits // 8
    wide = 8 if dtype == torch.float64 else 4
    heads, dim = config.kda_num_heads, config.kda_head_dim
    latent = (config.kv_lora_rank + config.qk_rope_head_dim) * size * tokens
    fixed = heads * dim * dim * wide + 3 * heads * dim * (config.short_conv_kernel_size - 1) * size
    return sum(latent if mixer == "mla" else fixed for mixer in config.layer_mixers)
