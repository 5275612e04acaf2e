"""Effective length of a model by RULER's README, and its averages over lengths.

There is no official code for either. The README's rule, checked against its table (reference Llama-2-7B-chat at 4K =
85.6): the effective length is the longest one such that it and every shorter one reach the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import dropwhile, takewhile

from kleval.tables.cells import Cell
from kleval.tables.scores import expected_tasks
from kleval.text import format_length

FAMILY = "ruler"
THRESHOLD = 85.6


def in_words(averages: Iterable[Cell]) -> str:
    """One sentence on a model's averages over the whole family; the empty text when fewer than two lengths have one.

    averages: cells of one model, edition and protocol; those of other families, and those from the first that lacks a task on, are
    left out.
    """
    asked = {cell.ctx: cell for cell in averages if cell.task == FAMILY}
    whole = unbroken(asked, lambda c: c.value == c.value and c.n_tasks == expected_tasks(FAMILY, c))
    scores = {ctx: 100 * cell.value for ctx, cell in whole.items()}
    if len(scores) < 2:
        return ""
    lacking = min((ctx for ctx in asked if ctx > max(scores)), default=None)
    end = "" if lacking is None else f"; at {format_length(lacking)} tasks lack a score, which ends both"
    reached = effective_length(scores)
    rising, falling = weighted_averages(scores)
    span = f"{format_length(min(scores))} to {format_length(max(scores))}"
    there = format_length(reached) if reached is not None else f"below {format_length(min(scores))}"
    return (
        f"effective length (average of at least {THRESHOLD} there and at every shorter length): {there}; "
        f"weighted averages over {span}: {rising:.1f} weighing long lengths more, {falling:.1f} short ones{end}"
    )


def unbroken(cells: Mapping[int, Cell], whole: Callable[[Cell], bool]) -> dict[int, Cell]:
    """By length, from the first cell that is whole to the last before one that is not: a length between says nothing of its score."""
    rising = dropwhile(lambda ctx: not whole(cells[ctx]), sorted(cells))
    return {ctx: cells[ctx] for ctx in takewhile(lambda ctx: whole(cells[ctx]), rising)}


def effective_length(scores: Mapping[int, float], threshold: float = THRESHOLD) -> int | None:
    """scores: length in tokens -> average score in percent. None when the shortest length already falls short."""
    reached = None
    for ctx in sorted(scores):
        if not scores[ctx] >= threshold:
            break
        reached = ctx
    return reached


def weighted_averages(scores: Mapping[int, float]) -> tuple[float, float]:
    """wAvg(inc) and wAvg(dec): weights 1, 2, … n rising and falling from the shortest length to the longest."""
    if not scores:
        raise ValueError("no scores to average")
    values = [scores[length] for length in sorted(scores)]
    n = len(values)
    total = n * (n + 1) / 2
    rising = sum(w * v for w, v in enumerate(values, 1)) / total
    falling = sum((n + 1 - w) * v for w, v in enumerate(values, 1)) / total
    return rising, falling
