"""A decoder of kleval's own as an engine of `serving`: rows of different lengths in one batch, forks that share their latent rows.

A part is split into chunks at the same positions whatever it is batched with. Latent rows are shared between a state and its forks;
recurrent states are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kleval.backends.native_memory import Memory
from kleval.backends.native_parts import Part
from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.models.stepper import Stepper, Steps

SCORED_TOKENS = 256  # positions whose logits exist at a time


@dataclass(frozen=True, slots=True)
class NativeEngine:
    """kleval.backends.serving.Engine of a Decoder; a state is a HybridCache."""

    decoder: Decoder
    memory: Memory

    @property
    def device(self) -> torch.device:
        return self.memory.device

    def forked(self, state: HybridCache | None, group: Sequence[tuple[int, Part]]) -> HybridCache:
        more = [part.total_tokens - part.begin for _, part in group]
        if state is None:
            return HybridCache(self.memory.config, len(group), self.device, self.memory.dtype, more)
        cache = state.fork([row for row, _ in group])
        cache.reserve(more)
        return cache

    def prefill(self, state: HybridCache, parts: Sequence[Part]) -> list[Tensor | None]:
        last: list[Tensor | None] = [None] * len(parts)
        firsts = [part.first for part in parts]
        lengths = [part.tokens for part in parts]
        ids = torch.zeros(len(parts), max(lengths), dtype=torch.int64)
        for row, part in enumerate(parts):
            ids[row, : lengths[row]] = torch.tensor(part.jobs[0].inputs[part.begin : part.end])
        ids = ids.to(self.device)
        for at in range(0, ids.shape[1], self.memory.prefill_tokens):
            chunk = ids[:, at : at + self.memory.prefill_tokens]
            counts = [min(max(length - at, 0), chunk.shape[1]) for length in lengths]
            full = min(counts) == chunk.shape[1]
            hidden = self.decoder.hidden(chunk, state, None if full else torch.tensor(counts, device=ids.device))
            for row, (part, count) in enumerate(zip(parts, counts, strict=True)):
                here = part.begin + at
                for begin in range(max(here, firsts[row]), here + count, SCORED_TOKENS):
                    end = min(begin + SCORED_TOKENS, here + count)
                    logits = self.decoder.logits(hidden[row, begin - here : end - here])
                    part.score(logits, begin)
                    last[row] = logits[-1].clone()
        return last

    def stepper(self, state: HybridCache) -> Callable[[Tensor, int, Collection[int]], Steps]:
        return Stepper(self.decoder, state).greedy

    def keep(self, state: HybridCache, rows: Sequence[int]) -> None:
        state.keep(rows)

    def weigh(self, state: HybridCache) -> dict[str, int]:
        used = state.used_by_component()
        return {"latent": used.latent, "recurrent": used.recurrent, "conv": used.conv}

    def alike(self, parts: Sequence[Part], fresh: bool) -> int:
        return len(parts)

    def state_bytes(self, part: Part) -> int:
        return self.memory.state_bytes(part.total_tokens, part.begin)

    def working_bytes(self, part: Part) -> int:
        return self.memory.working_bytes(part.tokens, part.end)

    def left(self, live: int) -> int:
        return self.memory.left(live)
