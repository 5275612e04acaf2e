"""Decode steps and repeats for each depth, so that all of them together keep to their time budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kleval.profiler.workload import DECODE_TOKENS, REPEATS

Cell = TypeVar("Cell")
DROPPED_STEPS = {"cpu": 2, "cuda": 3}  # on CUDA the first step compiles and the second is captured


@dataclass(frozen=True, slots=True)
class Level:
    """steps: timed ones per repeat, after `dropped` others that are not."""

    steps: int
    repeats: int
    dropped: int = 0

    @property
    def total(self) -> int:
        """Steps taken in all repeats."""
        return (self.steps + self.dropped) * self.repeats


LEVELS = (
    Level(DECODE_TOKENS, REPEATS),
    Level(16, REPEATS),
    Level(8, REPEATS),
    Level(8, 2),
    Level(8, 1),
    Level(4, 1),
)


def choose_levels(
    cells: Sequence[Cell],
    cost: Callable[[Cell, Level], float],
    budget_seconds: float,
    steps: int | None = None,
    repeats: int | None = None,
    dropped: int = 0,
) -> list[Level]:
    """A level per cell, in order: the best one that fits the cell's equal slot and what earlier cells left; else the least.

    steps, repeats: asked for, never changed.
    """
    levels = list(dict.fromkeys(Level(steps or level.steps, repeats or level.repeats, dropped) for level in LEVELS))
    chosen = []
    spare, slot = 0.0, budget_seconds / max(len(cells), 1)
    for cell in cells:
        level = next((level for level in levels if cost(cell, level) <= slot + spare), levels[-1])
        spare = max(spare + slot - cost(cell, level), 0.0)
        chosen.append(level)
    return chosen
