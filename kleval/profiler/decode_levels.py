"""Decode steps and repeats for each depth, so that all of them together keep to their time budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kleval.profiler.workload import DECODE_TOKENS, REPEATS

Cell = TypeVar("Cell")
Level = tuple[int, int]  # timed steps per repeat, repeats
DROPPED_STEPS = {
    "cpu": 2,
    "cuda": 3,
}  # before the timed ones; on CUDA the first step compiles and the second is captured
LEVELS: tuple[Level, ...] = ((DECODE_TOKENS, REPEATS), (16, REPEATS), (8, REPEATS), (8, 2), (8, 1), (4, 1))


def choose_levels(
    cells: Sequence[Cell],
    cost: Callable[[Cell, int], float],
    budget_seconds: float,
    steps: int | None = None,
    repeats: int | None = None,
    dropped: int = 0,
) -> list[Level]:
    """A level per cell, in order: the best one that fits the cell's equal slot and what earlier cells left; else the least.

    cost: of so many steps, those of all repeats and the `dropped` ones included. steps, repeats: asked for, never changed.
    """
    levels = list(dict.fromkeys((steps or timed, repeats or times) for timed, times in LEVELS))
    chosen = []
    spare, slot = 0.0, budget_seconds / max(len(cells), 1)
    for cell in cells:
        costs = {level: cost(cell, (level[0] + dropped) * level[1]) for level in levels}
        level = next((level for level in levels if costs[level] <= slot + spare), levels[-1])
        spare = max(spare + slot - costs[level], 0.0)
        chosen.append(level)
    return chosen
