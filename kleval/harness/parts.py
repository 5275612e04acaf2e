"""Part of the samples of a task at a length, as a shard of a run has it: dealt out by position, like cards.

A sample's position is how many samples that fit stand before it, which its id says (`…/i7`) where none is passed over. Blocks of
samples that belong together go to one hand, and blocks to the hands in turn, so that every hand has as many wherever the data end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kleval.types import Sample, Unfit


@dataclass(frozen=True, slots=True)
class Part:
    """What the hand at `place` (from 0) of `of` has. block: samples in a row that one hand gets."""

    place: int
    of: int
    block: int = 1

    def __str__(self) -> str:
        return f"p{self.place}of{self.of}b{self.block}"

    def has(self, position: int) -> bool:
        return position // self.block % self.of == self.place

    def positions(self, n: int) -> list[int]:
        """Those of the first n samples."""
        return [position for position in range(n) if self.has(position)]

    def taken(self, made: Iterator[Sample | Unfit], n: int) -> Iterator[Sample | Unfit]:
        """Of the first n samples those of this part, with what was passed over just before them, or before the data ended there."""
        position, left = 0, len(self.positions(n))
        for one in made:
            fits = isinstance(one, Sample)
            if self.has(position):
                yield one
                left -= fits
            if not left:
                return
            position += fits
