"""Plan of a verification: how long prompts may be, which lengths are likely boundaries, and the seed of what is drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from kleval.verify.engine import Ids

# Blocks, chunks and tiles of engines end at powers of two; the steps of a decode kernel at 16.
BOUNDARIES = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True, slots=True)
class Plan:
    """longest: tokens of a prompt with all that is written after it."""

    longest: int
    seed: int = 0

    def rng(self, *parts: object) -> random.Random:
        return random.Random("/".join(map(str, (self.seed, *parts))))

    def boundaries(self, room: int = 64) -> list[int]:
        """Those that fit with so many tokens behind them."""
        return [b for b in BOUNDARIES if b + room <= self.longest]

    def around(self, room: int = 64) -> Iterator[tuple[int, int]]:
        """(boundary, length) for lengths one below, at and one above each boundary; of long ones the last alone."""
        for boundary in self.boundaries(room):
            for n in (boundary - 1, boundary, boundary + 1) if boundary <= 1024 else (boundary + 1,):
                yield boundary, n

    def lengths(self, *wanted: int) -> list[int]:
        return [n for n in wanted if n + 64 <= self.longest] or [max(4, self.longest // 2)]


def slices(ids: Ids, begin: Ids, *lengths: int) -> list[Ids]:
    """Prompts of those lengths out of one, each beginning at another of its tokens."""
    own = ids[len(begin) :]
    found = []
    for number, n in enumerate(lengths):
        at = 1 + 7 * number
        kept = max(1, min(n, len(ids)) - len(begin))
        wrapped = (own[at % len(own) :] + own)[:kept]
        found.append((*begin, *wrapped))
    return found
